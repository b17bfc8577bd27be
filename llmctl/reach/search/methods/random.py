"""Random controls: the baseline that any other method must beat with the same number of scored controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmctl.reach.result import Step
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search

_TRIES = 16  # draws in a row that a filter may refuse before the search gives up


def run_random(search: Search, phase: Phase) -> Iterator[Step]:
    """Score controls of length `phase.k` that are drawn uniformly; none is scored twice.

    Args:
        search: The problem; its best control of length k is updated.
        phase: Each of `steps` steps scores `candidates` controls; a control that is drawn again is drawn
            anew.

    Yields:
        One step per `candidates` controls.
    """
    for _ in range(phase.steps):
        missing, tries = phase.candidates, _TRIES
        while missing > 0 and tries > 0 and search.untried(phase.k) > 0:
            scored, _ = search.evaluate_uniform(missing, phase.k, phase.method, stop_early=phase.stop_early)
            missing -= len(scored)
            tries = _TRIES if len(scored) else tries - 1
            if phase.stop_early and search.is_solved(phase.k):
                break
        if phase.k in search.best:
            yield search.step(phase.method, phase.k)
        if phase.stop_early and search.is_solved(phase.k):
            return


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {"candidates": candidates, "steps": steps}


METHOD = SearchMethod(
    run=run_random,
    label="random controls",
    summary="Draws controls uniformly.",
    sizes=_sizes,
    reads=("candidates", "steps", "stop_early"),
    needs_candidates=True,
    colour="#7b5ea7",
    marker="x",
)
