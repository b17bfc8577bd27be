"""Random controls: the baseline that any other method must beat with the same number of scored controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from llmctl.reach.result import Step
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search


def run_random(search: Search, phase: Phase) -> Iterator[Step]:
    """Score controls of length `phase.k` that are drawn uniformly; none is scored twice.

    Args:
        search: The problem; its best control of length k is updated.
        phase: Each of `steps` steps draws `candidates` controls.

    Yields:
        One step per `candidates` controls.
    """
    for _ in range(phase.steps):
        shape = (phase.candidates, phase.k)
        chosen = torch.randint(len(search.tokens), shape, generator=search.generator)
        controls = search.fresh(search.tokens[chosen])
        search.evaluate(controls, phase.method, stop_early=phase.stop_early)
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
