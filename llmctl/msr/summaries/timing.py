"""The journal of the seconds that units of work took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmctl.runs import Run

JOURNAL = "timing"


@contextmanager
def timed_unit(run: Run, unit: str) -> Iterator[None]:
    """Record the seconds of the block; work that is repeated after a kill is not counted twice.

    Args:
        run: Open.
        unit: Name of the unit of work: its journal, a slash, its key there.
    """
    start = time.perf_counter()
    yield
    book = run.journal(JOURNAL)
    if unit not in book:
        book.append(unit, {"seconds": round(time.perf_counter() - start, 3)})
