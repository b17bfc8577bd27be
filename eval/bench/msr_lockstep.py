"""Users per second that are summarized in lockstep, against one user at a time, in one process.

    python eval/bench/msr_lockstep.py --model smollm2-135m --users 32
    python eval/bench/msr_lockstep.py --memory 1000 50000

Both ways make the same recurrent summaries with the same sampler, `summarize_users` itself; one has all
users in a chunk, the other chunks of one. The target is a ratio of at least 4. `--memory` measures the
largest memory of a process that summarizes that many users with an engine without a model: it must not grow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.settings import UserSummarySettings
from llmctl.msr.summaries.cache import SummaryCache
from llmctl.msr.summaries.cached_llm import CachedModel
from llmctl.msr.summaries.users import UserSummarizer, iterate_summaries, summarize_users
from llmctl.msr.summaries.wording import Wording
from llmctl.msr.types import History
from llmctl.runs import Run, build_recipe
from llmctl.sampling import open_sampler
from llmctl.sampling.scripted import ScriptedSampler
from llmctl.sampling.settings import EngineSettings

WORDS = "red blue green old new small round soft bright quiet cup lamp shoe book chair coat ring".split()
ITEMS = 500
RECIPE = build_recipe(MsrRecipe, {"data": {"interactions": "none", "items": "none"}}, "bench")


def histories(users: int, length: int) -> Iterator[History]:
    """Users who chose at random."""
    for user in range(users):
        draw = random.Random(user)
        items = tuple(f"i{place}" for place in draw.sample(range(ITEMS), length))
        yield History(f"u{user}", items, tuple(map(float, range(length))))


def wording() -> Wording:
    draw = random.Random(0)
    return Wording({f"i{place}": " ".join(draw.sample(WORDS, 4)) for place in range(ITEMS)})


def sum_up(sampler: Any, users: int, length: int, settings: UserSummarySettings) -> float:
    """Seconds for all users."""
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "run", RECIPE, "bench") as run:
        model = CachedModel("bench", EngineSettings(), SummaryCache(Path("none"), 0), sampler)
        summarizer = UserSummarizer(settings, wording(), model, 0)
        began = time.perf_counter()
        summarize_users(run, "users-bench", histories(users, length), users, summarizer, quiet=True)
        names = (history.user for history in histories(users, length))
        said = sum(
            bool(summary) for summary in iterate_summaries(run.journal("users-bench"), settings.chunk, names)
        )
        if said != users:
            raise RuntimeError(f"{said} of {users} users have a summary")
        return time.perf_counter() - began


def peak_of(users: int, length: int, pipe: Any) -> None:
    """Send the largest resident memory of this process, in MiB."""
    draw = random.Random(1)
    sampler = ScriptedSampler(lambda conversation, seed: " ".join(draw.choices(WORDS, k=60)))
    spent = sum_up(sampler, users, length, UserSummarySettings(chunk=128))
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, spent))


def report_memory(sizes: list[int], length: int) -> None:
    context = multiprocessing.get_context("spawn")
    found = {}
    for users in sizes:
        here, there = context.Pipe()
        process = context.Process(target=peak_of, args=(users, length, there))
        process.start()
        found[users], spent = here.recv()
        process.join()
        print(f"{users:>7,} users: {found[users]:.0f} MiB at most, {spent:.1f} s")
    print(json.dumps({"mib": found, "ratio": found[sizes[-1]] / found[sizes[0]]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--engine", default="transformers", help="auto, transformers or vllm")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--history", type=int, default=9, help="items of every user")
    parser.add_argument("--max-tokens", type=int, default=32, help="of a summary")
    parser.add_argument("--memory", type=int, nargs="+", help="measure memory with these numbers of users")
    options = parser.parse_args()
    if options.memory:
        report_memory(options.memory, options.history)
        return
    shared: dict[str, Any] = {"max_tokens": options.max_tokens}
    with contextlib.closing(open_sampler(options.model, engine=options.engine)) as sampler:
        sum_up(sampler, 2, 3, UserSummarySettings(chunk=2, **shared))
        together = sum_up(
            sampler, options.users, options.history, UserSummarySettings(chunk=options.users, **shared)
        )
        alone = sum_up(sampler, options.users, options.history, UserSummarySettings(chunk=1, **shared))
    rates = {"lockstep": options.users / together, "one": options.users / alone}
    print(
        f"lockstep {rates['lockstep']:.3f} users/s, one at a time {rates['one']:.3f} users/s: "
        f"ratio {alone / together:.2f}"
    )
    print(json.dumps({"ratio": alone / together, "users_per_second": rates, **vars(options)}))


if __name__ == "__main__":
    main()
