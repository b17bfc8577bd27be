"""Tokens per second of the weighted trainer against TRL's plain SFTTrainer, in one process, alternating.

    python eval/bench/trainer_throughput.py --model smollm2-135m --steps 4 --rounds 3

Both train the same weights on the same tokenized rows in the same order, so the ratio is that of the loss
alone; the rows look like RISE's (two turns of context, one response that carries loss). Each round times
one trainer and then the other; the first round warms up and is left out. The ratio is the median over
rounds of weighted / plain. The target is at least 0.95.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from llmctl.models import load
from llmctl.training import SaveSettings, TrainSettings
from llmctl.training.data import Prepared, prepare
from llmctl.training.setup import build_arguments
from llmctl.training.weighted import LengthSampler, WeightedTrainer


class PlainTrainer(SFTTrainer):
    """TRL's trainer in the order of the other one."""

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthSampler:
        group = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthSampler(self.train_dataset["length"], group, self.args.seed)


class Stopwatch(TrainerCallback):
    """Seconds from the first forward pass to the last optimizer step."""

    start = end = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, once a GPU has finished its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.end = time.perf_counter()


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Sums with a wrong first attempt; responses of 5 to 60 words."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        numbers = [draw.randint(10, 999) for _ in range(draw.randint(2, 6))]
        steps = " ".join(f"Then we add {number}." for number in numbers for _ in range(draw.randint(1, 3)))
        rows.append(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": f"What is {' + '.join(map(str, numbers))}? Think step by step.",
                    },
                    {"role": "assistant", "content": f"{steps} The answer is {sum(numbers) + 1}."},
                    {"role": "user", "content": "That is not correct. Find the mistake and answer again."},
                    {"role": "assistant", "content": f"{steps} The answer is {sum(numbers)}."},
                ],
                "weight": draw.uniform(0.2, 2.0),
            }
        )
    return rows


def speed(
    kind: type[SFTTrainer], model: Any, tokenizer: Any, data: Prepared, settings: TrainSettings
) -> float:
    """Tokens per second of one short training, padding not counted."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        trainer = kind(
            model=model,
            args=build_arguments(settings, Path(folder)),
            train_dataset=data.dataset,
            processing_class=tokenizer,
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return trainer._total_train_tokens / (watch.end - watch.start)


def measure(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The speeds of one round after another."""
    loaded = load(options.model, dtype="float32")
    forward = loaded.model.forward
    data = prepare(make_rows(options.steps * options.batch_size, options.seed), loaded.tokenizer)
    settings = TrainSettings(
        adapter="full",
        learning_rate=1e-6,
        batch_size=options.batch_size,
        max_steps=options.steps,
        seed=options.seed,
        save=SaveSettings(save_steps=0),
    )
    for _ in range(options.rounds + 1):
        round_ = {}
        for name, kind in (("weighted", WeightedTrainer), ("plain", PlainTrainer)):
            loaded.model.forward = forward  # each trainer puts TRL's output head on the bare model
            round_[name] = speed(kind, loaded.model, loaded.tokenizer, data, settings)
        yield round_ | {"label_share": data.label_tokens / data.tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each trainer")
    parser.add_argument("--batch-size", type=int, default=4, help="rows per step")
    parser.add_argument("--seed", type=int, default=0, help="of rows and order")
    options = parser.parse_args()
    warm_up, *rounds = measure(options)
    ratios = [entry["weighted"] / entry["plain"] for entry in rounds]
    medians = {name: statistics.median(entry[name] for entry in rounds) for name in ("weighted", "plain")}
    ratio = statistics.median(ratios)
    print(
        f"weighted {medians['weighted']:.0f} tokens/s, plain {medians['plain']:.0f} tokens/s: "
        f"ratio {ratio:.3f} (rounds {min(ratios):.3f} to {max(ratios):.3f})"
    )
    report = {
        "ratio": ratio,
        "ratios": ratios,
        "tokens_per_second": medians,
        "label_share": warm_up["label_share"],
        **vars(options),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
