"""Seconds to score a user's 21 candidates with their common beginning computed once, against 21 prompts.

    python eval/bench/msr_prefix.py --model smollm2-135m --users 4
    python eval/bench/msr_prefix.py --engine vllm --users 16

On the transformers engine all ways score the same prompts in one process and must agree; the target is a
ratio of at least 4. The ratio is that of tokens, (P + S) N / (P + S N) for a prefix of P and rests of S,
where computing is what takes the time. "One at a time" is code without batches. On vLLM,
whose prefix cache is always on here, the share of prompt tokens that came from it is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import time
from typing import Any

import torch

from llmctl.msr import prompts
from llmctl.msr.recommender.prompt import find_answer_tokens
from llmctl.sampling import open_sampler
from llmctl.sampling.adapted import AdaptedModel
from llmctl.sampling.forward import ForwardPasses
from llmctl.sampling.transformers_engine import TransformersSampler

WORDS = "red blue green old new small round soft bright quiet cup lamp shoe book chair coat ring".split()


class SeparatePasses(ForwardPasses):
    """Forward passes that compute every row whole."""

    @property
    def can_share(self) -> bool:
        """Never."""
        return False


class Separate(TransformersSampler):
    """The same engine without common beginnings."""

    def _forward_passes(self, adapted: AdaptedModel) -> ForwardPasses:
        return SeparatePasses(adapted, self.tokenizer.pad_token_id, self.device, self.usage)


def conversations(user: int, preference_words: int, candidates: int) -> list[Any]:
    """What is asked about a user's candidates: made-up preferences, made-up titles."""
    draw = random.Random(user)
    known = " ".join(draw.choices(WORDS, k=preference_words))
    titles = (" ".join(draw.sample(WORDS, 4)) for _ in range(candidates))
    fields = ({"preferences": known, "candidate": prompts.item_line(title)} for title in titles)
    return [[{"role": "user", "content": prompts.fill(prompts.RECOMMEND, one)}] for one in fields]


def measure(sampler: Any, users: list[list[Any]], tokens: Any, size: int) -> tuple[float, list[float]]:
    """Seconds for all users, and every score; `size` conversations per call."""
    began, scores = time.perf_counter(), []
    for asked in users:
        for start in range(0, len(asked), size):
            rows = sampler.next_token_logprobs(asked[start : start + size], tokens.ids)
            scores += [tokens.probability(row)[0] for row in rows]
    return time.perf_counter() - began, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    parser.add_argument("--users", type=int, default=4, help="users of each way and round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=21)
    parser.add_argument("--words", type=int, default=240, help="of a preference summary")
    options = parser.parse_args()
    users = [conversations(n, options.words, options.candidates) for n in range(options.users)]
    warm = [conversations(-1, options.words, 2)]
    if options.engine == "vllm":
        report_vllm(options, users)
        return
    ways = {"shared": (TransformersSampler, options.candidates), "batched": (Separate, options.candidates)}
    ways["one at a time"] = (Separate, 1)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {}
    for way, (kind, size) in ways.items():
        with contextlib.closing(kind(options.model)) as sampler:
            tokens = find_answer_tokens(sampler.tokenizer, options.model)
            measure(sampler, warm, tokens, size)
            sampler.usage = type(sampler.usage)()
            for _ in range(options.rounds):
                spent, scores[way] = measure(sampler, users, tokens, size)
                seconds[way].append(spent)
            if way == "shared":
                used = sampler.usage
    gap = max(abs(a - b) for way in ways for a, b in zip(scores["shared"], scores[way], strict=True))
    medians = {way: statistics.median(values) / options.users for way, values in seconds.items()}
    report = {
        "ratio": medians["one at a time"] / medians["shared"],
        "ratio_to_batched": medians["batched"] / medians["shared"],
        "largest_difference_of_scores": gap,
        "seconds_a_user": medians,
        "prompt_tokens_a_candidate": used.prompt_tokens
        / (options.rounds * options.users * options.candidates),
        "cached_share": used.cached_tokens / used.prompt_tokens,
        "threads": torch.get_num_threads(),
        **vars(options),
    }
    print(
        f"prefix once {medians['shared']:.2f} s a user, {options.candidates} prompts one at a time "
        f"{medians['one at a time']:.2f} s: ratio {report['ratio']:.2f} (against one batch "
        f"{report['ratio_to_batched']:.2f}), scores differ by {gap:.1e} at most"
    )
    print(json.dumps(report))


def report_vllm(options: argparse.Namespace, users: list[list[Any]]) -> None:
    """Hit rate of vLLM's prefix cache over users that it has not seen before."""
    with contextlib.closing(open_sampler(options.model, engine="vllm")) as sampler:
        tokens = find_answer_tokens(sampler.tokenizer, options.model)  # type: ignore[attr-defined]
        spent, _ = measure(sampler, users, tokens, options.candidates)
        share = sampler.usage.cached_tokens / sampler.usage.prompt_tokens
    print(f"vLLM: {share:.1%} of {sampler.usage.prompt_tokens:,} prompt tokens came from its prefix cache")
    print(json.dumps({"hit_rate": share, "seconds_a_user": spent / len(users), **vars(options)}))


if __name__ == "__main__":
    main()
