"""Beam search without gradients: keep the best W controls of each length, lengthen each by many tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from llmctl.reach.result import Step
from llmctl.reach.search.candidates import lengthen
from llmctl.reach.search.config import Phase
from llmctl.reach.search.state import Search


def run_beam(search: Search, phase: Phase) -> Iterator[Step]:
    """Search at lengths up to `phase.k`; lengths that an earlier beam phase finished are not repeated.

    Args:
        search: The problem; its best control of each length is updated.
        phase: `width` controls are kept; each is lengthened by `candidates` random tokens (0: all).

    Yields:
        A step for every length.
    """
    beams = search.beams
    beams.setdefault(0, torch.empty(1, 0, dtype=torch.long))
    for length in range(1, phase.k + 1):
        if length in beams:
            continue
        controls = torch.cat([_lengthened(search, beam, phase) for beam in beams[length - 1]])
        controls, losses = search.evaluate(controls, "beam", stop_early=phase.stop_early)
        beams[length] = controls[losses.argsort()[: phase.width]]
        if length in search.best:
            yield search.step("beam", length)
        if len(beams[length]) == 0 or (phase.stop_early and search.is_solved(length)):
            return


def _lengthened(search: Search, beam: Tensor, phase: Phase) -> Tensor:
    tokens = search.tokens
    if phase.candidates and phase.candidates < len(tokens):
        tokens = tokens[torch.randperm(len(tokens), generator=search.generator)[: phase.candidates]]
    return lengthen(beam, tokens, search.scorer.layout)
