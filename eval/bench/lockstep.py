"""Episodes per second of lockstep collection against one conversation at a time, in one process.

    python eval/bench/lockstep.py --model smollm2-135m --problems 64

Both use the same sampler, settings, problems and seeds, and `collect_episodes` itself; one way gives it all
problems at once, the other one problem after another. A first small call warms up and is left out. The target
is a ratio of at least 4. A batch saves reading the weights for every new token, but not computing the
prompts, so the ratio grows with the number of problems and with the length of the replies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from llmctl.rise import collect_episodes
from llmctl.rise.recipe import CollectSettings
from llmctl.rise.rollout import Player
from llmctl.sampling import open_sampler
from llmctl.sampling.settings import SamplingSettings
from llmctl.tasks import Problem, get_task


def collect(player: Player, parts: Sequence[Sequence[Problem]], settings: CollectSettings) -> dict[str, Any]:
    """Episodes per second and how often they were right, of problems in parts that are played one by one."""
    began, records = time.perf_counter(), []
    before = player.sampler.usage.snapshot()
    for part in parts:
        records += collect_episodes(player, part, settings, seed=0)
    seconds = time.perf_counter() - began
    used = player.sampler.usage.since(before)
    return {
        "episodes_per_second": len(records) / seconds,
        "seconds": seconds,
        "episodes": len(records),
        "attempts": sum(len(record["turns"]) for record in records),
        "calls": used.calls,
        "completion_tokens": used.completion_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--engine", default="transformers", help="auto, transformers or vllm")
    parser.add_argument("--problems", type=int, default=64, help="episodes of each way and round")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each way")
    parser.add_argument("--task", default="sort", help="as `llmctl tasks list` shows them")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1, help="samples at each state")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the problems")
    options = parser.parse_args()
    task = get_task(options.task)
    settings = CollectSettings(turns=options.turns, samples=options.samples)
    sampling = SamplingSettings(temperature=0.7, max_tokens=options.max_tokens)
    problems = list(task.problems("train", options.problems, options.seed))
    rounds = []
    sampler = open_sampler(options.model, engine=options.engine)
    with contextlib.closing(sampler):
        player = Player(sampler, task, sampling)
        collect(player, [problems[:2]], settings)
        for _ in range(options.rounds):
            one = collect(player, [[problem] for problem in problems], settings)
            rounds.append({"lockstep": collect(player, [problems], settings), "one": one})
        info = sampler.info
    ratios = [r["lockstep"]["episodes_per_second"] / r["one"]["episodes_per_second"] for r in rounds]
    last = rounds[-1]
    print(
        f"lockstep {last['lockstep']['episodes_per_second']:.2f} episodes/s, one at a time "
        f"{last['one']['episodes_per_second']:.2f} episodes/s: ratio {statistics.median(ratios):.2f}"
    )
    report = {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "rounds": rounds,
        **vars(options),
        "engine": info.engine,
        "details": dict(info.details),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
