r"""From attention to a graph: tensor mathematics, no model.

B batch, T time (Tq queries, Tk keys), H heads, D head width, G graphs (1, or H with one graph per head).
Row i of a graph is the token that receives messages, column j the token that sends them:

    A_h[i, j] = softmax_j(q_i . k_j * scaling)          attention of head h, 0 where j is masked or later
    A = merge_h A_h                                     sum clamped at 1, mean, learned mix, any, or each
    S = sigmoid(sharpness * (A - threshold))            where j is visible, else 0
    A'[i, j] = S[i, j] if S[i, j] > epsilon, else 0     and self-loops, top fraction, distance
    message_i = sum_j A'[i, j] x_j                      see `llmctl.gin.messages`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from llmctl.gin.attention_inputs import AttentionInputs, attention_weights, query_index, visible_keys

HeadMerge = Literal["sum", "mean", "mix", "any", "each"]
SelfLoops = Literal["keep", "drop", "only"]
Mix = Callable[[Tensor], Tensor]


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
    """Keep each row's heaviest edges: the ceiling of `fraction` times the keys that are visible to the row.

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
    distance = query_index(inputs)[:, None] - torch.arange(edges.shape[-1], device=edges.device)  # (Tq, Tk)
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
