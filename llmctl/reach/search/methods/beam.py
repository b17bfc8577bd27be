"""Beam search without gradients: keep the best W controls of each length and lengthen each by many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from llmctl.reach.result import Step
from llmctl.reach.search.candidates import lengthen
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search


def run_beam(search: Search, phase: Phase) -> Iterator[Step]:
    """Search at lengths up to `phase.k`; lengths that an earlier beam phase finished are not repeated.

    Args:
        search: The problem; its best control of each length is updated.
        phase: `width` controls of each length are kept; each is lengthened by `candidates` random tokens
            (0: by all of them).

    Yields:
        One step per length.
    """
    beams = search.beams
    beams.setdefault(0, torch.empty(1, 0, dtype=torch.long))
    for length in range(1, phase.k + 1):
        if length in beams:
            continue
        controls = torch.cat([_lengthened(search, beam, phase) for beam in beams[length - 1]])
        controls, losses = search.evaluate(controls, phase.method, stop_early=phase.stop_early)
        beams[length] = controls[losses.argsort()[: phase.width]]
        if length in search.best:
            yield search.step(phase.method, length)
        if len(beams[length]) == 0 or (phase.stop_early and search.is_solved(length)):
            return


def _lengthened(search: Search, beam: Tensor, phase: Phase) -> Tensor:
    tokens = search.tokens
    if phase.candidates and phase.candidates < len(tokens):
        tokens = tokens[torch.randperm(len(tokens), generator=search.generator)[: phase.candidates]]
    return lengthen(beam, tokens, search.scorer.layout)


_WIDTH = 8


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {"candidates": max(candidates * steps // _WIDTH, 1), "width": _WIDTH}


METHOD = SearchMethod(
    run=run_beam,
    label="beam",
    summary="Keeps the best controls of each length and lengthens each by many tokens.",
    sizes=_sizes,
    reads=("candidates", "width", "stop_early"),
    colour="#e0a030",
    marker="v",
)
