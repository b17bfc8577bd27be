"""Peak memory of collection at 1,000 and at 100,000 problems, with an engine that has no model.

    python eval/bench/streaming.py --problems 1000 100000

Each size is a process of its own that collects, journals and writes training rows as `llmctl rise collect`
does. What is left when the smaller is subtracted from the larger is what grows with the problems; the peak is
the process's own (VmHWM). Without streaming, the records alone would grow as the journal on the disk does.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmctl.messages import Conversation

ONE = "--one"


def answer(conversation: Conversation, seed: int) -> str:
    """Right half of the time, otherwise the numbers in some other order."""
    numbers = conversation[-1]["content"].split("\n")[-1].split()
    draw = random.Random(seed)
    if draw.random() < 0.5:
        return " ".join(sorted(numbers))
    draw.shuffle(numbers)
    return " ".join(numbers)


def peak_mib() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def collect(problems: int, chunk: int, folder: Path) -> dict[str, float]:
    """Collect one iteration and write its rows; peak memory, seconds and the size of the journal."""
    from llmctl.rise import loop, phases, policies
    from llmctl.rise.recipe import CollectSettings, RiseRecipe
    from llmctl.runs import Run
    from llmctl.sampling.scripted import ScriptedSampler

    policies.open_sampler = lambda *_, **__: ScriptedSampler(answer)  # type: ignore[assignment,attr-defined]
    recipe = RiseRecipe(
        collect=CollectSettings(
            problems=problems, turns=2, samples=2, improve=("self", "reference"), chunk=chunk
        )
    )
    began = time.perf_counter()
    with Run.open(folder, recipe, "benchmark") as run:
        start = peak_mib()
        counts = loop.collect(phases.Phases(run, recipe, quiet=True), 1)
        loop.collection_counts(run, 1)
        journal = (folder / "journal" / "collect-1.jsonl").stat().st_size / 2**20
    return {
        "problems": problems,
        "peak_mib": peak_mib(),
        "start_mib": start,
        "seconds": time.perf_counter() - began,
        "rows": counts["rows"],
        "journal_mib": journal,
    }


def measure(problems: int, chunk: int) -> dict[str, float]:
    """The same in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, ONE, f"{folder}/run", "--problems", str(problems)]
        done = subprocess.run(
            [*command, "--chunk", str(chunk)], check=True, stdout=subprocess.PIPE, text=True
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[1000, 100_000], help="sizes to compare")
    parser.add_argument("--chunk", type=int, default=64, help="problems in lockstep")
    parser.add_argument(ONE, type=Path, default=None, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(collect(options.problems[0], options.chunk, options.one)))
        return
    sizes = [measure(problems, options.chunk) for problems in options.problems]
    small, large = sizes[0], sizes[-1]
    ratio = large["peak_mib"] / small["peak_mib"]
    print(
        f"peak {small['peak_mib']:.1f} MiB at {small['problems']:,} problems, {large['peak_mib']:.1f} MiB at "
        f"{large['problems']:,} (ratio {ratio:.3f}; journal on the disk: {large['journal_mib']:.0f} MiB)"
    )
    print(json.dumps({"ratio": ratio, "sizes": sizes, "chunk": options.chunk}))


if __name__ == "__main__":
    main()
