"""Rows as embeddings, so that a loss can be differentiated by the tokens of a control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.records import BLANK


def embed_row(model: Any, layout: Layout, control: Tensor, start: tuple[int, ...]) -> Tensor:
    """Embed `start`, a control with its blanks, and what follows it.

    Args:
        model: A causal language model of transformers.
        layout: Where the control goes.
        control: (K,) token ids; `BLANK` stands for the mean embedding.
        start: The tokens before the control: the left side, or none where it is read from a cache.

    Returns:
        (1, T, D) without a graph.
    """
    table = model.get_input_embeddings()
    right = (*layout.right_ids, *layout.target_ids[:-1])
    ids = torch.tensor([[*start, *control.clamp(min=0).tolist(), *right]], device=model.device)
    # Outside inference mode, since the embeddings will carry a graph.
    embeds: Tensor = table(ids).detach()
    blanks = (control == BLANK).nonzero().flatten().to(model.device) + len(start)
    if len(blanks):
        # The place of a blank holds a padding token, whose embedding may be zero: the scale is read off the
        # tokens of the layout instead.
        known = torch.tensor([*layout.left_ids, *layout.right_ids, *layout.target_ids], device=model.device)
        embeds[0, blanks] = blank_embedding(model, table(known).detach(), known).to(embeds.dtype)
    return embeds


def blank_embedding(model: Any, embeds: Tensor, ids: Tensor) -> Tensor:
    """(D,) the mean of all token embeddings, at the scale at which the model reads them.

    Args:
        model: A causal language model of transformers; some multiply their embeddings by a constant.
        embeds: (..., D) what the model made of `ids`, to read the constant off.
        ids: (...,) token ids.
    """
    weight = model.get_input_embeddings().weight.detach()
    scale: Tensor = embeds.norm() / weight[ids].norm()
    return weight.mean(0) * scale
