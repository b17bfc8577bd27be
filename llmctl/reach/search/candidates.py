"""Lengthen a control by one token: every allowed token, or the most promising ones first."""

from __future__ import annotations

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.scorer import BLANK
from llmctl.reach.search.state import Search


def extends_right(layout: Layout) -> bool:
    """Whether new tokens go to the control's right end.

    The published back-generation extends to the left. Where the control is the last thing that the model
    reads, extending to the right lets all candidates share the keys of everything before them.
    """
    return not layout.right_ids


def lengthen(base: Tensor, tokens: Tensor, layout: Layout) -> Tensor:
    """(M, K + 1) the control `base` (K,) lengthened by each token (M,)."""
    new = tokens.view(-1, 1)
    old = base.expand(len(tokens), -1)
    return torch.cat([old, new] if extends_right(layout) else [new, old], 1)


def promising_first(search: Search, base: Tensor) -> Tensor:
    """The allowed tokens, those first that the gradient at a blank place expects most of.

    The target's own tokens lead: repeating what should be said is the commonest way to have it said.
    """
    place = len(base) if extends_right(search.scorer.layout) else 0
    blank = torch.tensor([BLANK])
    control = torch.cat([base[:place], blank, base[place:]])
    slopes, _ = search.scorer.gradient(control)
    order = slopes[place].cpu()[search.tokens].argsort()
    tokens = search.tokens[order]
    is_target = torch.isin(tokens, torch.tensor(search.scorer.layout.target_ids))
    return torch.cat([tokens[is_target], tokens[~is_target]])
