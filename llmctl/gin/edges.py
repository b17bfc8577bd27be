r"""From scores to the edges of GIN- and PNA-attention: pure tensor maths.

B batch, H heads, Tq queries, Tk keys. With s the scaled scores of a head and its learned sharpness a:

    A = softmax(a s)                                  or softplus(a s) with beta 10, not normalised
    A = relu(A_1 - lambda A_2)                        differential: two sets of queries and keys
    none:    A
    soft:    sigmoid(slope * (A - threshold))
    binary:  1 where A > threshold, else 0            gradient passed straight through to A
    top_k:   the k heaviest edges of each row
    flow:    the fewest edges of each row that carry the share `threshold` of its weight

What is masked or later is 0 throughout. The paper names the four thresholds without equations; "flow" is
read here as the analogue of nucleus sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

EdgeWeights = Literal["softmax", "softplus"]
EdgeThreshold = Literal["none", "soft", "binary", "top_k", "flow"]

SOFTPLUS_BETA = 10.0


@dataclass(frozen=True)
class EdgeRule:
    """How scores become edges; the fields are those of `GraphLlamaConfig`."""

    weights: EdgeWeights = "softmax"
    threshold_mode: EdgeThreshold = "none"
    threshold: float = 0.1
    slope: float = 10.0
    top_k: int = 8


def weigh(scores: Tensor, visible: Tensor, weights: EdgeWeights) -> Tensor:
    """Scores to non-negative weights, 0 where a key is not visible.

    Args:
        scores: (B, H, Tq, Tk), scaled.
        visible: (B or 1, 1, Tq, Tk), True is visible.
        weights: Normalised ("softmax") or not ("softplus").

    Returns:
        (B, H, Tq, Tk) in float32.
    """
    scores = scores.float()
    if weights == "softplus":
        return torch.nn.functional.softplus(scores, beta=SOFTPLUS_BETA) * visible
    hidden = scores.masked_fill(~visible, torch.finfo(torch.float32).min)
    return torch.softmax(hidden, dim=-1) * visible


def keep_top_k(weights: Tensor, k: int) -> Tensor:
    """Keep the k heaviest edges of each row, and those as heavy as the last of them."""
    if k >= weights.shape[-1]:
        return weights
    last = weights.detach().topk(k, dim=-1).values[..., -1:]  # (B, H, Tq, 1)
    return weights * (weights >= last)


def keep_flow(weights: Tensor, share: float) -> Tensor:
    """Keep the fewest edges of each row whose weights sum to at least `share` of the row's."""
    ordered, order = weights.detach().sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # weight of the edges heavier than this one
    needed = before < share * ordered.sum(-1, keepdim=True)
    return weights * torch.zeros_like(needed).scatter(-1, order, needed)


def threshold_edges(weights: Tensor, visible: Tensor, rule: EdgeRule) -> Tensor:
    """Thin out the weights (B, H, Tq, Tk) as the rule says; the result has the same shape."""
    if rule.threshold_mode == "soft":
        return torch.sigmoid(rule.slope * (weights - rule.threshold)) * visible
    if rule.threshold_mode == "binary":
        hard = (weights > rule.threshold).to(weights.dtype)
        return (hard + weights - weights.detach()) * visible
    if rule.threshold_mode == "top_k":
        return keep_top_k(weights, rule.top_k)
    if rule.threshold_mode == "flow":
        return keep_flow(weights, rule.threshold)
    return weights
