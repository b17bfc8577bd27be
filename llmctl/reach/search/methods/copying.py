"""Copying: controls that make attention copy the target, tried before any gradient is taken.

Where a text repeats a passage, a language model tends to go on as it did the first time: an attention head
finds the earlier place that is like the end of the text, and copies what followed it there (an induction
head; Olsson et al., arXiv 2209.11895). So a control that holds the target behind the tokens that will stand
before the answer often makes the model emit the target. A handful of such controls exist per length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.result import Step
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search


def run_copying(search: Search, phase: Phase) -> Iterator[Step]:
    """Score the copying controls of length `phase.k`.

    Args:
        search: The problem; its best control of length k is updated.
        phase: Only its k and `stop_early` are read, since the controls are few.

    Yields:
        One step, if there was a control to score.
    """
    controls = search.fresh(copying_controls(search, phase.k))
    if len(controls) == 0:
        return
    search.evaluate(controls, phase.method, stop_early=phase.stop_early)
    if phase.k in search.best:
        yield search.step(phase.method, phase.k)


def copying_controls(search: Search, k: int) -> Tensor:
    """(N, K) the copying controls of length k whose every token is allowed, each once; N may be 0."""
    found = torch.tensor(copies(search.scorer.layout, k), dtype=torch.long).view(-1, k)
    return found[torch.isin(found, search.tokens).all(1)]


def copies(layout: Layout, k: int) -> list[tuple[int, ...]]:
    """The copying controls of length k, the longest context first.

    With the target y and the tokens ..., x_2, x_1 that end the prompt, a control before them is
    x_j ... x_1 y, repeated to length k, for each j below k. A control that itself ends the prompt is
    y x_j ... x_1, repeated, so that the target comes next. A target of several tokens is copied whole, or
    its first tokens where it is longer than what is left of the control. In a chat template, the tokens
    that end the prompt are the template's, so the end of the user's text is tried as well.
    """
    ends_prompt = not layout.right_ids
    contexts = [layout.state_ids] if ends_prompt else [layout.right_ids, layout.state_ids]
    found: dict[tuple[int, ...], None] = {}  # a set that keeps its order
    for context in contexts:
        for length in range(min(k - 1, len(context)), -1, -1):
            before = context[len(context) - length :]
            target = layout.target_ids[: k - length]
            block = (*target, *before) if ends_prompt else (*before, *target)
            found[(block * k)[-k:]] = None
    return list(found)


def _planned(search: Search, phase: Phase) -> int:
    return len(copying_controls(search, phase.k))


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {}


METHOD = SearchMethod(
    run=run_copying,
    label="copies of the target",
    summary="Places the target in the control behind the tokens that precede the answer.",
    sizes=_sizes,
    reads=("stop_early",),
    planned=_planned,
    colour="#17a2a2",
    marker="P",
)
