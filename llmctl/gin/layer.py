r"""The arithmetic of a Sparse-GIN: what is added to the residual stream of one decoder layer.

With h the residual stream (B, T, hidden), A' the graph of `llmctl.gin.graph` and L rounds:

    x^0     = W_down h
    z^l_i   = eps_l x^l_i + sum_j A'[i, j] x^l_j              GIN aggregation, eps learned from 0
    x^{l+1} = dropout(act(z^l + W_2 act(W_1 z^l)))            MLP with a skip around it
    delta   = scale * norm(W_up x^L)                          what is added to the stream

With one graph per head, the width is shared among the heads as in multi-head attention: head g aggregates
its own slice of x over its own graph and has its own eps and MLP. (The public code gives each head a GIN of
full width, which multiplies the parameters by the number of heads.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.fused import pass_messages
from llmctl.gin.graph import GraphRule

Activation = Literal["prelu", "relu", "gelu", "silu"]
Norm = Literal["rms", "layer", "none"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


@dataclass(frozen=True)
class GinShape:
    """The sizes of one layer's GIN."""

    hidden: int  # features of the residual stream
    width: int  # features of a node
    depth: int  # rounds of message passing
    graphs: int = 1  # 1, or the number of heads with one graph per head
    mixed_heads: int = 0  # heads that a learned mix reduces; 0 is no learned mix
    mix_width: int = 8
    activation: Activation = "prelu"
    dropout: float = 0.0
    norm: Norm = "rms"

    def parameters(self, train_scale: bool) -> int:
        """The number of trainable parameters of a `SparseGin` of this shape.

        Down and up: 2 hw + w + h. A round: G eps, two linear maps of G (w/G)^2 + w, two activations.
        """
        hidden, width, part = self.hidden, self.width, self.width // self.graphs
        projections = 2 * hidden * width + width + hidden
        activation = 1 if self.activation == "prelu" else 0
        rounds = self.depth * (self.graphs + 2 * (self.graphs * part * part + width) + 2 * activation)
        norm = {"rms": hidden, "layer": 2 * hidden, "none": 0}[self.norm]
        mix = self.mix_width * (self.mixed_heads + 1) if self.mixed_heads else 0
        return projections + rounds + norm + mix + int(train_scale)


class Memory(Protocol):
    """Keeps the earlier tokens' features of one layer and adapter beside the key/value cache."""

    def extend(self, level: int, nodes: Tensor) -> Tensor:
        """Append new tokens' features (B, Tq, W) of a round and return those of all keys, (B, Tk, W)."""
        ...


class HeadMix(nn.Module):
    """The learned mix over heads: clamp(mean_h A_h + V silu(U A), 0, 1), entry by entry of the graph.

    V starts at 0, so the graph starts as the mean. There is no bias: no attention gives no edge.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(heads, width, bias=False)
        self.outer = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.outer.weight)

    def forward(self, weights: Tensor) -> Tensor:
        """Mix (B, H, Tq, Tk) into (B, 1, Tq, Tk)."""
        by_edge = weights.permute(0, 2, 3, 1).to(self.inner.weight.dtype)  # (B, Tq, Tk, H)
        learned = self.outer(nn.functional.silu(self.inner(by_edge)))  # (B, Tq, Tk, 1)
        mixed = weights.mean(dim=1, keepdim=True) + learned.permute(0, 3, 1, 2).to(weights.dtype)
        return mixed.clamp(0.0, 1.0)


class GroupedLinear(nn.Module):
    """G linear maps side by side: (B, T, W) -> (B, T, W), slice g of W by map g. One map is `nn.Linear`."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        part = width // groups
        self.weight = nn.Parameter(torch.empty(groups, part, part))  # (G, out, in)
        self.bias = nn.Parameter(torch.empty(width))
        bound = 1 / math.sqrt(part)  # as nn.Linear starts
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map (B, T, W) to (B, T, W)."""
        if self.weight.shape[0] == 1:
            return nn.functional.linear(nodes, self.weight[0], self.bias)
        split = nodes.unflatten(-1, (self.weight.shape[0], -1))  # (B, T, G, W/G)
        return torch.einsum("btgi,goi->btgo", split, self.weight).flatten(-2) + self.bias


class GinRound(nn.Module):
    """One round of message passing: dropout(act(z + W_2 act(W_1 z))) with z = eps x + messages."""

    def __init__(self, shape: GinShape) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(shape.graphs))
        self.inner = GroupedLinear(shape.graphs, shape.width)
        self.inner_act = _ACTIVATIONS[shape.activation]()
        self.outer = GroupedLinear(shape.graphs, shape.width)
        self.outer_act = _ACTIVATIONS[shape.activation]()
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, nodes: Tensor, messages: Tensor) -> Tensor:
        """Update nodes (B, Tq, W) with their aggregated messages (B, Tq, W)."""
        eps = self.eps.repeat_interleave(nodes.shape[-1] // self.eps.shape[0])  # (W,)
        z = eps * nodes + messages
        return self.dropout(self.outer_act(z + self.outer(self.inner_act(self.inner(z)))))


class SparseGin(nn.Module):
    """The GIN of one decoder layer and one adapter; `delta` in the equations of this module.

    Args:
        shape: The sizes.
        rule: How attention becomes a graph.
        scale: Where the scale starts.
        train_scale: Whether the scale is a trained parameter.
        detach_graph: Whether queries and keys get no gradient through the graph.
    """

    def __init__(
        self, shape: GinShape, rule: GraphRule, scale: float, train_scale: bool, detach_graph: bool
    ) -> None:
        super().__init__()
        self.shape, self.rule, self.detach_graph = shape, rule, detach_graph
        self.mix = HeadMix(shape.mixed_heads, shape.mix_width) if shape.mixed_heads else None
        self.down = nn.Linear(shape.hidden, shape.width)
        self.rounds = nn.ModuleList(GinRound(shape) for _ in range(shape.depth))
        self.up = nn.Linear(shape.width, shape.hidden)
        norms = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}
        # An explicit eps: the default of RMSNorm is that of the dtype, which differs between devices' dtypes.
        self.norm = nn.Identity() if shape.norm == "none" else norms[shape.norm](shape.hidden, eps=1e-6)
        self.scale: float | nn.Parameter = nn.Parameter(torch.tensor([scale])) if train_scale else scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Scales of shape (1,) can be sharded; in files of earlier versions they have shape ().
        scale = state_dict.get(f"{prefix}scale")
        if scale is not None and scale.ndim == 0:
            state_dict[f"{prefix}scale"] = scale.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, stream: Tensor, inputs: AttentionInputs, memory: Memory | None = None) -> Tensor:
        """What to add to the residual stream.

        Args:
            stream: (B, Tq, hidden), the residual stream of the new tokens.
            inputs: Queries and keys of this layer's attention.
            memory: Where the earlier tokens' features are; None where there are none (Tq = Tk).

        Returns:
            (B, Tq, hidden), in the dtype of `stream`.
        """
        if self.detach_graph:
            inputs = inputs.detached()
        nodes = self.down(stream.to(self.down.weight.dtype))
        for level, gin_round in enumerate(self.rounds):
            known = nodes if memory is None else memory.extend(level, nodes)
            nodes = gin_round(nodes, pass_messages(inputs, self.rule, known, self.mix))
        return (self.scale * self.norm(self.up(nodes))).to(stream.dtype)
