"""Greedy back-generation: try the vocabulary as the next token beside the best shorter control.

Source: the experiments of arXiv 2310.04444. Here promising tokens are tried first, and the search stops
at the first hit; a phase can switch off both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from llmctl.reach.result import Step
from llmctl.reach.search.candidates import lengthen, promising_first
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search

_STRIDE = 1024  # candidates between two recorded steps


def run_greedy(search: Search, phase: Phase) -> Iterator[Step]:
    """Search at length `phase.k`, from the best control of length k - 1.

    Shorter lengths that no method has tried yet are searched first, in the same way.

    Args:
        search: The problem; its best control of length k is updated.
        phase: At most `candidates` tokens are tried (0: all), the promising ones first if `ordered`.

    Yields:
        A step after every 1,024 candidates and at the end.
    """
    k = phase.k
    if k > 1 and k - 1 not in search.best:
        yield from run_greedy(search, replace(phase, k=k - 1))
        if phase.stop_early and search.is_solved(k - 1):
            return
    base = search.best[k - 1].control if k > 1 and k - 1 in search.best else torch.empty(0, dtype=torch.long)
    tokens = promising_first(search, base) if phase.ordered else search.tokens
    controls = lengthen(base, tokens, search.scorer.layout)
    if phase.ordered:
        controls = search.fresh(controls)
    if phase.candidates:
        controls = controls[: phase.candidates]
    for chunk in controls.split(_STRIDE):
        search.evaluate(chunk, phase.method, stop_early=phase.stop_early)
        if k in search.best:
            yield search.step(phase.method, k)
        if phase.stop_early and search.is_solved(k):
            return


def planned_extensions(search: Search, phase: Phase) -> int:
    """Controls that a phase scores: at most one per allowed token."""
    return min(phase.candidates or len(search.tokens), len(search.tokens))


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {"candidates": candidates * steps}


METHOD = SearchMethod(
    run=run_greedy,
    label="greedy, leftwards",
    summary="Lengthens the best shorter control by the best next token.",
    sizes=_sizes,
    reads=("candidates", "stop_early", "ordered"),
    planned=planned_extensions,
    colour="#59a869",
    marker="^",
)
