"""What the job engine costs in addition to sampling: 1,000 samples of a stub engine that takes 1 ms each.

    python eval/bench/job_overhead.py

Overhead is the time of a job minus the time spent inside the sampler, which the stub measures. The task is
a stub too, whose problems and checks cost nothing. Every part and journal line is flushed to
disk as in any job.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

SAMPLES = 1000
PAUSE_S = 0.001


class StubTask:
    """Problems and checks that cost nothing."""

    name = "stub"

    def __iter__(self):
        return self.problems()

    def problems(self, split="test", limit=None, seed=0):  # noqa: D102
        from llmctl.tasks import Problem

        return (Problem(f"p{number}", f"say {number}", str(number)) for number in range(limit or SAMPLES))

    def conversation(self, problem):  # noqa: D102
        return [{"role": "user", "content": problem.prompt}]

    def check(self, problem, text):  # noqa: D102
        from llmctl.tasks import Feedback

        return Feedback(1.0, True, "Right.", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shard-size", type=int, default=64)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMCTL_CACHE"] = folder
        measure(Path(folder) / "warm", given.shard_size)  # imports
        rounds = [measure(Path(folder) / str(number), given.shard_size) for number in range(given.rounds)]
    names = ("run", "finish")
    shares = {name: statistics.median(r[name] / r["sampling"] for r in rounds) for name in names}
    for found in rounds:
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
    print(f"overhead while samples are made (median of {given.rounds}): {shares['run']:.1%} of sampling time")
    print(f"merge and summary afterwards: {shares['finish']:.1%}")


def measure(folder: Path, shard_size: int) -> dict[str, float]:
    """Seconds inside the sampler, and beyond it, of one job."""
    from llmctl.jobs import run as job_run
    from llmctl.jobs.spec import JobRecipe
    from llmctl.runs import Run, build_recipe
    from llmctl.sampling.scripted import ScriptedSampler
    from llmctl.trust import allow_code

    spent = [0.0]

    class Timed(ScriptedSampler):
        def chat(self, conversations, settings=None):
            start = time.perf_counter()
            replies = super().chat(conversations, settings)
            spent[0] += time.perf_counter() - start
            return replies

    def reply(conversation, seed):
        time.sleep(PAUSE_S)
        return conversation[-1]["content"]

    allow_code()  # the task below is this file's
    recipe = build_recipe(
        JobRecipe,
        {
            "models": {"stub": {"model": "stub", "engine": "server"}},
            "tasks": {"stub": {"name": "python:job_overhead:StubTask"}},
            "protocols": ["single"],
            "limit": SAMPLES,
            "shard_size": shard_size,
        },
        "bench",
    )
    finish, after = job_run._finish, [0.0]

    def timed_finish(*arguments):
        start = time.perf_counter()
        finish(*arguments)
        after[0] = time.perf_counter() - start

    job_run._finish = timed_finish
    try:
        with Run.open(folder, recipe, "bench") as run:
            start = time.perf_counter()
            job_run.run_job(run, recipe, quiet=True, open_model=lambda model, **_: Timed(reply, model))
            total = time.perf_counter() - start
    finally:
        job_run._finish = finish
    return {"sampling": spent[0], "run": total - spent[0] - after[0], "finish": after[0]}


if __name__ == "__main__":
    main()
