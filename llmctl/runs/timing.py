"""How long the units of a run took: one line of `journal/timing.jsonl` per unit.

The key of a unit is "<phase>/<unit>", e.g. "collect-1/chunk-3". A unit that is done again after a kill keeps
its first line, so that nothing is counted twice; work that a kill has lost is not counted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from llmctl.runs.run import Run

TIMING = "timing"  # the journal


@contextmanager
def timed(run: Run, unit: str) -> Iterator[None]:
    """Record the seconds of the block, once it has ended without an error."""
    began = time.perf_counter()
    yield
    record_seconds(run, unit, began)


def record_seconds(run: Run, unit: str, began: float) -> None:
    """Record the seconds of a unit of work.

    Args:
        run: Open.
        unit: Its key, unique in the run.
        began: What `time.perf_counter` returned when the unit began.
    """
    journal = run.journal(TIMING)
    if unit not in journal:
        journal.append(unit, {"seconds": round(time.perf_counter() - began, 3)})


def seconds_by_phase(run: Run) -> dict[str, float]:
    """The recorded seconds of every phase, summed over its units."""
    seconds: dict[str, float] = defaultdict(float)
    for line in run.journal(TIMING):
        seconds[line["key"].partition("/")[0]] += line["seconds"]
    return dict(seconds)


def total_seconds(run: Run) -> float:
    """The recorded seconds of all units."""
    total: float = sum(line["seconds"] for line in run.journal(TIMING))
    return total
