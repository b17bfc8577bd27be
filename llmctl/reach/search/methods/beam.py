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
            (0: by all of them), or by more where fewer than `width` are there, as at length 1.

    Yields:
        One step per length.
    """
    beams = search.beams
    beams.setdefault(0, torch.empty(1, 0, dtype=torch.long))
    for length in range(1, phase.k + 1):
        if length in beams:
            continue
        count = -(-phase.candidates * phase.width // max(len(beams[length - 1]), 1))
        controls = torch.cat([_lengthened(search, beam, count) for beam in beams[length - 1]])
        controls, losses = search.evaluate(controls, phase.method, stop_early=phase.stop_early)
        beams[length] = controls[losses.argsort()[: phase.width]]
        if length in search.best:
            yield search.step(phase.method, length)
        if len(beams[length]) == 0 or (phase.stop_early and search.is_solved(length)):
            return


def _lengthened(search: Search, beam: Tensor, count: int) -> Tensor:
    """A control lengthened by `count` random tokens; 0 is every token."""
    tokens = search.tokens
    if count and count < len(tokens):
        tokens = tokens[torch.randperm(len(tokens), generator=search.generator)[:count]]
    return lengthen(beam, tokens, search.scorer.layout)


_WIDTH = 8


def _planned(search: Search, phase: Phase) -> int:
    return min(phase.candidates or len(search.tokens), len(search.tokens)) * phase.width


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {"candidates": max(candidates * steps // _WIDTH, 1), "width": _WIDTH}


METHOD = SearchMethod(
    run=run_beam,
    label="beam",
    summary="Keeps the best controls of each length and lengthens each by many tokens.",
    sizes=_sizes,
    reads=("candidates", "width", "stop_early"),
    planned=_planned,
    colour="#e0a030",
    marker="v",
)
