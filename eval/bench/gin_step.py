"""Sparse-GIN against LoRA at equal size: time and memory of a train step, time per new token.

    python eval/bench/gin_step.py --steps 5 --tokens 512
    python eval/bench/gin_step.py --device cuda --dtype bfloat16 --steps 20 --out gin_step.json

LoRA adapts all linear layers at the rank nearest to `--budget`; the width of the Sparse-GIN is solved for
LoRA's size. A train step is forward, loss, backward and AdamW over one sequence of random tokens, without
gradient checkpointing. The two take turns step by step within one process, the first of each is left out, and
a ratio is that of the medians. Peak memory is that of a train step in a process of its own for each arm
(weights, adapter, gradients, optimizer and activations). Decoding adds tokens to a cache of `--tokens`, one
at a time. The targets: at most 1.5 times LoRA's time and 1.3 times its memory per step, 1.3 times its time
per new token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from llmctl.gin import SparseGinConfig, count_trainable, solve_rank, solve_width
from llmctl.gin.matched import linear_targets
from llmctl.models import load
from llmctl.studies.adapters.memory import PeakMemory

ARMS = ("lora", "sparse_gin")
TARGETS = {"step": 1.5, "memory": 1.3, "token": 1.3}
ONE = "--one"


def adapted(arm: str, options: argparse.Namespace) -> Any:
    """The base model with one arm's adapter at the common size."""
    torch.manual_seed(options.seed)
    model = load(options.model, device=options.device, dtype=options.dtype).model
    names = linear_targets(model.config)
    lora = solve_rank(model.config, options.budget, names)
    if arm == "lora":
        return get_peft_model(model, LoraConfig(r=lora.size, target_modules=names, task_type="CAUSAL_LM"))
    width = solve_width(model.config, SparseGinConfig(), lora.parameters).size
    # A scale that starts above 0, so that what is timed also has an effect.
    config = SparseGinConfig(width=width, scale_first=0.1, scale_last=0.1, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def random_ids(model: Any, options: argparse.Namespace) -> torch.Tensor:
    """(1, tokens) on the model's device."""
    draw = torch.Generator().manual_seed(options.seed)
    ids = torch.randint(model.config.vocab_size, (1, options.tokens), generator=draw)
    return ids.to(model.device)


def train_step(model: Any, options: argparse.Namespace) -> Callable[[], None]:
    """One optimizer step on one sequence, to be called again and again."""
    ids = random_ids(model, options)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step() -> None:
        model.train()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(run: Callable[[], Any], model: Any) -> float:
    """Seconds of a call by the wall, once a GPU has finished its work."""
    is_cuda = model.device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def token_seconds(model: Any, options: argparse.Namespace) -> float:
    """Mean seconds of a new token over a filled cache; filling it is not counted."""
    model.eval()
    out = model(input_ids=random_ids(model, options), use_cache=True, logits_to_keep=1)
    cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)

    def decode() -> None:
        nonlocal token
        for _ in range(options.new_tokens):
            logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
            token = logits[:, -1:].argmax(-1)

    return seconds(decode, model) / options.new_tokens


def take_turns(measure: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each arm's measurements, in alternating order; the first round warms up and is left out."""
    found: dict[str, list[float]] = {arm: [] for arm in measure}
    for i in range(rounds + 1):
        for arm in list(measure)[:: 1 if i % 2 else -1]:
            value = measure[arm]()
            if i:
                found[arm].append(value)
    return found


def peak_mib(arm: str, options: argparse.Namespace) -> float | None:
    """Peak memory of three train steps, in this process."""
    meter = PeakMemory()
    step = train_step(adapted(arm, options), options)
    meter.reset()
    for _ in range(3):
        step()
    return meter.peak()


def in_own_process(arm: str, options: argparse.Namespace) -> float:
    """The same in a process of its own, MiB."""
    passed = ("model", "device", "dtype", "tokens", "budget", "seed", "threads")
    arguments = [f"--{name}={getattr(options, name)}" for name in passed]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, __file__, ONE, arm, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | hidden,
    )
    peak: float | None = json.loads(done.stdout.splitlines()[-1])
    if peak is None:
        raise RuntimeError("this system does not tell a process's peak memory")
    return peak


def compare(values: dict[str, list[float]], what: str, unit: str, factor: float) -> dict[str, Any]:
    """The ratio of the medians, printed with both medians and ranges."""
    medians = {arm: statistics.median(values[arm]) for arm in ARMS}
    ratio = medians["sparse_gin"] / medians["lora"]
    parts = [
        f"{arm} {medians[arm] * factor:.1f} {unit} "
        f"({min(values[arm]) * factor:.1f} to {max(values[arm]) * factor:.1f})"
        for arm in reversed(ARMS)
    ]
    verdict = "met" if ratio <= TARGETS[what] else "MISSED"
    print(f"{what}: {', '.join(parts)}: ratio {ratio:.3f} (target {TARGETS[what]}, {verdict})")
    return {"ratio": ratio, "target": TARGETS[what], "medians": medians, "values": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--steps", type=int, default=5, help="measurements of each arm")
    parser.add_argument("--tokens", type=int, default=512, help="length of the sequence and of the cache")
    parser.add_argument("--new-tokens", type=int, default=16, help="tokens a measurement of decoding")
    parser.add_argument("--budget", type=int, default=1_200_000, help="trainable parameters")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU; 0 leaves them as they are")
    parser.add_argument("--seed", type=int, default=0, help="of adapters and tokens")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    parser.add_argument(ONE, choices=ARMS, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.one is not None:
        print(json.dumps(peak_mib(options.one, options)))
        return
    peaks = {arm: [in_own_process(arm, options)] for arm in ARMS}
    models = {arm: adapted(arm, options) for arm in ARMS}
    sizes = {arm: count_trainable(model) for arm, model in models.items()}
    print(", ".join(f"{arm} {size:,} trainable parameters" for arm, size in sizes.items()))
    steps: dict[str, Callable[[], float]] = {}
    tokens: dict[str, Callable[[], float]] = {}
    for arm, model in models.items():
        step = train_step(model, options)
        steps[arm] = lambda step=step, model=model: seconds(step, model)  # type: ignore[misc]
        tokens[arm] = lambda model=model: token_seconds(model, options)  # type: ignore[misc]
    report = {
        "step": compare(take_turns(steps, options.steps), "step", "ms", 1000),
        "memory": compare(peaks, "memory", "MiB", 1),
        "token": compare(take_turns(tokens, options.steps), "token", "ms", 1000),
        "trainable_parameters": sizes,
        **{name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "device": str(models["lora"].device),
        "dtype": str(models["lora"].dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    text = json.dumps(report)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
