"""The exhaustive scan: try every allowed control of one token. A scan that finds nothing is a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmctl.reach.result import Step
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.greedy import planned_extensions, run_greedy
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search

SCAN = "scan"  # also the name under which witnesses of a scan shared by several targets are recorded


def run_scan(search: Search, phase: Phase | None = None) -> Iterator[Step]:
    """Score every allowed token as a control, the promising ones first.

    Greedy search at length 1 is this scan, since there is nothing shorter to lengthen.

    Args:
        search: The problem; its best control of one token is updated.
        phase: Sizes; None scans all tokens and stops at the first hit.

    Yields:
        A step after every 1,024 controls and at the end.
    """
    return run_greedy(search, phase if phase is not None else Phase(SCAN, 1))


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {}


METHOD = SearchMethod(
    run=run_scan,
    label="exhaustive scan of single tokens",
    summary="Tries every allowed control of one token.",
    sizes=_sizes,
    reads=("candidates", "stop_early", "ordered"),
    planned=planned_extensions,
    max_k=1,
    colour="#1f6fb4",
    marker="s",
)
