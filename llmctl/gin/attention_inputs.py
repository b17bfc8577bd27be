"""The inputs of an attention layer and its weights: tensor mathematics, no model.

B batch, Tq queries, Tk keys, H heads, Hkv key heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llmctl.errors import UserError


@dataclass(frozen=True)
class AttentionInputs:
    """What an attention layer computed its weights from.

    Attributes:
        query: (B, H, Tq, D), after the rotary embedding.
        key: (B, Hkv, Tk, D), after the rotary embedding, cached keys first; H is a multiple of Hkv.
        mask: (B or 1, H or 1, Tq, Tk), boolean (True is visible) or additive; None is plain causal.
        scaling: Factor of the scores.
        softcap: c in c * tanh(scores / c); None is no cap.
        offset: Index of the first query among the keys: query i is key offset + i.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scaling: float
    softcap: float | None = None
    offset: int = 0

    @classmethod
    def build(
        cls,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        scaling: float | None,
        softcap: float | None = None,
    ) -> AttentionInputs:
        """Inputs of a whole attention call, where the queries are the last Tq of the Tk keys.

        Raises:
            UserError: There are fewer keys than queries.
        """
        offset = key.shape[2] - query.shape[2]
        if offset < 0:
            raise UserError(
                f"attention got {query.shape[2]} queries and {key.shape[2]} keys, but Sparse-GIN needs every "
                "query among the keys: use causal self-attention"
            )
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        return cls(query, key, mask, scaling, softcap, offset)

    def detached(self) -> AttentionInputs:
        """The same inputs without gradient."""
        return replace(self, query=self.query.detach(), key=self.key.detach())

    def rows(self, start: int, stop: int) -> AttentionInputs:
        """The inputs of queries start to stop, with the keys that the last of them can reach."""
        reach = self.offset + stop
        mask = self.mask
        if mask is not None:
            mask = (mask if mask.shape[2] == 1 else mask[:, :, start:stop])[..., :reach]
        query, key = self.query[:, :, start:stop], self.key[:, :, :reach]
        return replace(self, query=query, key=key, mask=mask, offset=self.offset + start)


def visible_keys(inputs: AttentionInputs) -> Tensor:
    """Which keys each query may receive messages from: those that are neither masked nor later.

    Returns:
        (B or 1, H or 1, Tq, Tk), True is visible.
    """
    key_index = torch.arange(inputs.key.shape[2], device=inputs.key.device)
    earlier = key_index <= query_index(inputs)[:, None]  # (Tq, Tk)
    if inputs.mask is None:
        return earlier[None, None]
    if inputs.mask.dtype == torch.bool:
        return inputs.mask & earlier
    return (inputs.mask > torch.finfo(inputs.mask.dtype).min / 2) & earlier


def attention_weights(inputs: AttentionInputs, visible: Tensor) -> Tensor:
    """Attention weights, 0 where a key is not visible, and all 0 for a query that sees nothing.

    Args:
        inputs: Queries and keys.
        visible: (B or 1, H or 1, Tq, Tk), from `visible_keys`.

    Returns:
        (B, H, Tq, Tk) in float32.
    """
    batch, heads, queries, width = inputs.query.shape
    kv_heads = inputs.key.shape[1]
    grouped = inputs.query.reshape(batch, kv_heads, (heads // kv_heads) * queries, width)
    scores = (grouped @ inputs.key.transpose(2, 3)).view(batch, heads, queries, -1) * inputs.scaling
    if inputs.softcap is not None:
        scores = torch.tanh(scores / inputs.softcap) * inputs.softcap
    if inputs.mask is not None and inputs.mask.dtype != torch.bool:
        scores = scores + inputs.mask
    scores = scores.float().masked_fill(~visible, torch.finfo(torch.float32).min)
    return torch.softmax(scores, dim=-1) * visible


def query_index(inputs: AttentionInputs) -> Tensor:
    """(Tq,) index of each query among the keys."""
    return torch.arange(inputs.query.shape[2], device=inputs.query.device) + inputs.offset
