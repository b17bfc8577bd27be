"""Random controls: the baseline that any cleverer method must beat at the same number of forwards."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from llmctl.reach.result import Step
from llmctl.reach.search.config import Phase
from llmctl.reach.search.state import Search


def run_random(search: Search, phase: Phase) -> Iterator[Step]:
    """Score `candidates` controls of length `phase.k` a step, drawn uniformly, each tried once.

    Yields:
        A step for every `candidates` controls.
    """
    for _ in range(phase.steps):
        shape = (phase.candidates, phase.k)
        chosen = torch.randint(len(search.tokens), shape, generator=search.generator)
        controls = search.fresh(search.tokens[chosen])
        search.evaluate(controls, "random", stop_early=phase.stop_early)
        if phase.k in search.best:
            yield search.step("random", phase.k)
        if phase.stop_early and search.is_solved(phase.k):
            return
