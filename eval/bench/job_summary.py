"""Summary of a job of 10 million rows: seconds and peak memory.

    python eval/bench/job_summary.py [--rows 10000000]

Two models, votes of five and five turns, one seed: rows are made in a process of their own, so that peak
memory is that of the summary alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLES = 5
MODELS = ("base", "tuned")
PROTOCOLS = ("parallel", "sequential")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--step", choices=("make", "sum"), help="one of the two processes")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.step == "make":
        make(given.file, given.rows)
    elif given.step == "sum":
        print(json.dumps(summarize(given.file)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.parquet"
            call = [sys.executable, __file__, "--rows", str(given.rows), "--file", str(file), "--step"]
            subprocess.run([*call, "make"], check=True)
            size = file.stat().st_size
            found = json.loads(subprocess.run([*call, "sum"], check=True, capture_output=True).stdout)
        print(f"{found['rows']:,} rows, {size / 2**20:.0f} MiB of Parquet")
        print(f"summary: {found['seconds']:.1f} s, peak memory {found['peak_mib']:.0f} MiB")


def recipe():
    from llmctl.jobs.spec import JobRecipe
    from llmctl.runs import build_recipe

    models = {name: {"model": "m", "engine": "server"} for name in MODELS}
    protocols = {name: {"n": SAMPLES} for name in PROTOCOLS}
    return build_recipe(JobRecipe, {"models": models, "tasks": ["sort"], "protocols": protocols}, "bench")


def make(file: Path, rows: int) -> None:
    """Random results in the order of a plan, in row groups as merging makes them."""
    import numpy as np
    import pyarrow as pa

    from llmctl.jobs.results import GROUP_ROWS, result_schema, write_results

    rng = np.random.default_rng(0)
    problems = rows // (len(MODELS) * len(PROTOCOLS) * SAMPLES)
    step = GROUP_ROWS // SAMPLES

    def tables():
        for model in MODELS:
            for protocol in PROTOCOLS:
                for start in range(0, problems, step):
                    yield table(model, protocol, start, min(step, problems - start))

    def table(model, protocol, start, count):
        size = count * SAMPLES
        correct = rng.random(size) < (0.3 if model == "base" else 0.35)
        answers = np.where(correct, 0, rng.integers(1, 50, size))
        places = np.tile(np.arange(SAMPLES), count)
        is_turn = protocol == "sequential"
        text = pa.array([f"The answer is {answer}, as one can see." for answer in range(50)])
        columns = {
            "model": pa.array([model] * size),
            "adapter": pa.nulls(size, pa.string()),
            "task": pa.array(["sort"] * size),
            "protocol": pa.array([protocol] * size),
            "seed": np.zeros(size, np.int64),
            "problem": pa.array(np.repeat([f"test:{n}" for n in range(start, start + count)], SAMPLES)),
            "sample": (0 * places if is_turn else places).astype(np.int32),
            "turn": (places + 1 if is_turn else 0 * places + 1).astype(np.int32),
            "text": text.take(pa.array(answers)),
            "reward": correct.astype(float),
            "tokens": rng.integers(10, 200, size).astype(np.int32),
            "is_correct": correct,
            "answer": pa.array(answers).cast(pa.string()),
            "error": pa.nulls(size, pa.string()),
        }
        return pa.table(columns, schema=result_schema())

    write_results(file, tables())


def summarize(file: Path) -> dict[str, float]:
    """Time of the summary in this process, imports aside, and its peak memory."""
    from llmctl.jobs.summary import summarize_results

    asked = recipe()
    start = time.perf_counter()
    summary = summarize_results(file, asked)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": sum(e["samples"] for e in summary["figures"]), "seconds": seconds, "peak_mib": peak}


if __name__ == "__main__":
    main()
