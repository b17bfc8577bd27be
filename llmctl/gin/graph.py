r"""From attention to a graph, and messages over it: pure tensor maths, no model.

B batch, T time (Tq queries, Tk keys), H heads, D head width, G graphs (1, or H with a graph a head), W width.
Row i of a graph is the token that listens, column j the token that it hears:

    A_h[i, j] = softmax_j(q_i . k_j * scaling)          attention of head h, 0 where j is masked or later
    A = merge_h A_h                                     sum clamped at 1, mean, learned mix, any, or each
    S = sigmoid(sharpness * (A - threshold))            where j is visible, else 0
    A'[i, j] = S[i, j] if S[i, j] > epsilon, else 0     and self-loops, top fraction, distance
    message_i = sum_j A'[i, j] x_j

Since the softmax runs over j, each row of A' depends on that row alone. So everything works on a *block of
rows*: all heads of a few queries at a time, never a T x T matrix. That is exact for every merge, the learned
mix and the top fraction included, which a block of heads would not be. With gradients each block is
recomputed in the backward pass instead of kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmctl.errors import UserError

HeadMerge = Literal["sum", "mean", "mix", "any", "each"]
SelfLoops = Literal["keep", "drop", "only"]
Mix = Callable[[Tensor], Tensor]

BLOCK_ELEMENTS = 1 << 20  # attention weights (B * H * rows * Tk) held at once: 4 MiB in float32


@dataclass(frozen=True)
class GraphRule:
    """How attention weights become edges; the fields are those of `SparseGinConfig`."""

    heads: HeadMerge = "sum"
    sharpness: float | None = 10.0
    threshold: float = 0.1
    epsilon: float = 0.6
    top_fraction: float | None = None
    self_loops: SelfLoops = "keep"
    edge_weights: bool = True
    distance_scale: float | None = None


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
    """Which keys each query may hear: neither masked nor later.

    Returns:
        (B or 1, H or 1, Tq, Tk), True is visible.
    """
    key_index = torch.arange(inputs.key.shape[2], device=inputs.key.device)
    earlier = key_index <= _query_index(inputs)[:, None]  # (Tq, Tk)
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


def merge_heads(weights: Tensor, how: HeadMerge, mix: Mix | None = None) -> Tensor:
    """Reduce the heads' attention weights to the weights of one graph, in [0, 1].

    "any" is the largest head: sharpened, it is the soft form of "some head is above the threshold", since
    the sigmoid grows with its argument. (The other soft form, 1 - prod(1 - s_h), saturates with many heads.)

    Args:
        weights: (B, H, Tq, Tk).
        how: The rule.
        mix: The learned mix, (B, H, Tq, Tk) -> (B, 1, Tq, Tk); only for "mix".

    Returns:
        (B, G, Tq, Tk), G = H for "each" and 1 otherwise.
    """
    if how == "each":
        return weights
    if how == "mix":
        if mix is None:
            raise ValueError("heads='mix' needs the learned mix")
        return mix(weights)
    if how == "any":
        return weights.amax(dim=1, keepdim=True)
    if how == "mean":
        return weights.mean(dim=1, keepdim=True)
    return weights.sum(dim=1, keepdim=True).clamp(max=1.0)


def keep_top(edges: Tensor, visible: Tensor, fraction: float) -> Tensor:
    """Keep each row's heaviest edges: the ceiling of `fraction` times the keys that the row may hear.

    Edges as heavy as the last one kept are kept too, so that the result does not depend on their order.

    Args:
        edges: (B, G, Tq, Tk).
        visible: (B or 1, 1 or G, Tq, Tk), True is visible.
        fraction: In (0, 1].

    Returns:
        (B, G, Tq, Tk), the other edges 0.
    """
    count = (visible.sum(-1, keepdim=True) * fraction).ceil().long().clamp(min=1)  # (B or 1, 1 or G, Tq, 1)
    ordered = edges.detach().sort(dim=-1, descending=True).values
    last = ordered.gather(-1, (count - 1).expand(*edges.shape[:-1], 1))
    return edges * (edges >= last)


def adjacency(inputs: AttentionInputs, rule: GraphRule, mix: Mix | None = None) -> Tensor:
    """The graph of some queries: A' in the equations of this module.

    Args:
        inputs: Queries and keys of those rows.
        rule: How attention becomes edges.
        mix: The learned mix over heads; only for heads "mix".

    Returns:
        (B, G, Tq, Tk) in float32, 0 where there is no edge.
    """
    visible = visible_keys(inputs)
    edges = merge_heads(attention_weights(inputs, visible), rule.heads, mix)
    if visible.shape[1] != 1 and edges.shape[1] == 1:
        visible = visible.any(dim=1, keepdim=True)
    if rule.sharpness is not None:
        edges = torch.sigmoid(rule.sharpness * (edges - rule.threshold)) * visible
    distance = _query_index(inputs)[:, None] - torch.arange(edges.shape[-1], device=edges.device)  # (Tq, Tk)
    if rule.self_loops != "keep":
        edges = edges * ((distance == 0) if rule.self_loops == "only" else (distance != 0))
    edges = edges * (edges > rule.epsilon)
    if rule.top_fraction is not None:
        edges = keep_top(edges, visible, rule.top_fraction)
    if not rule.edge_weights:
        edges = (edges > 0).to(edges.dtype)
    if rule.distance_scale is not None:
        edges = edges * torch.exp(-distance.clamp(min=0) / rule.distance_scale)
    return edges


def send_messages(
    inputs: AttentionInputs,
    rule: GraphRule,
    nodes: Tensor,
    mix: Mix | None = None,
    block_elements: int = BLOCK_ELEMENTS,
) -> Tensor:
    """Sum what each token hears: message_i = sum_j A'[i, j] x_j, in blocks of rows.

    Args:
        inputs: Queries and keys of the attention layer.
        rule: How attention becomes edges.
        nodes: (B, Tk, W), the tokens' features; with a graph a head, head g hears slice g of W.
        mix: The learned mix over heads; only for heads "mix".
        block_elements: Attention weights held at once.

    Returns:
        (B, Tq, W), in the dtype of `nodes`.
    """
    graphs = inputs.query.shape[1] if rule.heads == "each" else 1
    batch, keys, width = nodes.shape
    split = nodes.view(batch, keys, graphs, width // graphs).transpose(1, 2)  # (B, G, Tk, W/G)

    def block(query: Tensor, key: Tensor, features: Tensor, part: AttentionInputs) -> Tensor:
        # Queries and keys come as arguments so that the checkpoint sees what needs a gradient.
        edges = adjacency(replace(part, query=query, key=key), rule, mix)  # (B, G, rows, reach)
        return edges.to(features.dtype) @ features

    heard = []
    for start, stop in row_blocks(inputs, block_elements):
        part = inputs.rows(start, stop)
        features = split[:, :, : part.key.shape[2]]
        if torch.is_grad_enabled():
            heard.append(
                checkpoint(
                    block, part.query, part.key, features, part, use_reentrant=False, preserve_rng_state=False
                )
            )
        else:
            heard.append(block(part.query, part.key, features, part))
    return torch.cat(heard, dim=2).transpose(1, 2).reshape(batch, -1, width)


def row_blocks(inputs: AttentionInputs, block_elements: int = BLOCK_ELEMENTS) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose attention weights together number at most `block_elements` (or one row)."""
    batch, heads, queries, _ = inputs.query.shape
    rows = max(1, block_elements // (batch * heads * inputs.key.shape[2]))
    for start in range(0, queries, rows):
        yield start, min(start + rows, queries)


def _query_index(inputs: AttentionInputs) -> Tensor:
    """(Tq,) index of each query among the keys."""
    return torch.arange(inputs.query.shape[2], device=inputs.query.device) + inputs.offset
