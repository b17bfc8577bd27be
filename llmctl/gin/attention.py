r"""GIN- and PNA-attention: attention layers whose heads are graph networks, for models trained from scratch.

B batch, T time (Tq queries, Tk keys), H heads, D head width, M width of the per-head MLP. Per head, with A
the edges of `llmctl.gin.edges` and v_j = W_in x_j (M features; H M in all):

    GIN:  z_i = sum_j A[i, j] v_j + eps v_i,                                     eps learned from 0
    PNA:  z_i = W_agg [v_i, {1, s_i, 1/s_i} x {mean_i, max_i, min_i, std_i}],    s_i = log(d_i + 1) / delta
    out_i = W_out silu(rmsnorm(dropout(z_i + b)))                                heads side by side, no W_o

The paper's MLP takes (eps x_i + sum_j A[i, j] x_j) through its first linear map; since that map is linear it
is applied before the sum here, which is the same function, H times cheaper, and lets v be cached in place of
the values: generation with a cache is exact.

PNA (Corso et al., 2020): d_i is the number of edges of row i and delta its reference, log(d + 1) at
`reference_degree`, where the source averages over a training set. Mean and std weigh neighbours by A
normalised over the row; max and min are over the messages A[i, j] v_j, so that they too depend on attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicLayer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from llmctl.errors import UserError
from llmctl.gin.edges import threshold_edges, weigh

if TYPE_CHECKING:
    from llmctl.gin.graph_llama import GraphLlamaConfig

PNA_BLOCK_ELEMENTS = 1 << 24  # messages (B * H * rows * Tk * M) held at once: 64 MiB in float32
AGGREGATES = 4  # mean, max, min, std
SCALERS = 3  # identity, amplification, attenuation


class HeadwiseLinear(nn.Module):
    """One linear map a head: (B, H, T, in) -> (B, H, T, out), without bias."""

    def __init__(self, heads: int, inner: int, outer: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inner, outer))

    def forward(self, features: Tensor) -> Tensor:
        """Map each head's features by its own matrix."""
        return features @ self.weight


class GraphAttention(nn.Module):
    """What GIN- and PNA-attention share: edges, cache, per-head MLP, blend with plain attention.

    Args:
        config: The model's config.
        layer_idx: Index of the decoder layer.
    """

    def __init__(self, config: GraphLlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.rule = config, layer_idx, config.edge_rule()
        self.heads, self.head_dim = config.num_attention_heads, int(config.head_dim or 0)
        self.groups = self.heads // int(config.num_key_value_heads or self.heads)
        self.width = config.graph_width()
        sets = 2 if config.graph_differential else 1
        hidden, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(hidden, sets * self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, sets * self.heads // self.groups * self.head_dim, bias=bias)
        self.in_proj = nn.Linear(hidden, self.heads * self.width, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(self.heads, 1, self.width))
        self.in_bias = nn.Parameter(torch.zeros(self.heads, 1, self.width))
        self.dropout = nn.Dropout(config.graph_dropout)
        self.out_proj = HeadwiseLinear(self.heads, self.width, self.head_dim)
        if config.graph_sharpening:
            self.log_sharpness = nn.Parameter(torch.zeros(self.heads, 1, 1))
        if config.graph_differential:
            self.subtract_logit = nn.Parameter(torch.zeros(self.heads, 1, 1))  # lambda starts at 0.5
        if config.graph_blend:
            self.v_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=bias)
            self.blend_logit = nn.Parameter(torch.zeros(self.heads, 1, 1))  # half and half at the start

    def combine(self, edges: Tensor, own: Tensor, all_nodes: Tensor) -> Tensor:
        """What a token makes of its neighbours.

        Args:
            edges: (B, H, Tq, Tk).
            own: (B, H, Tq, M), features of the queries' own tokens.
            all_nodes: (B, H, Tk, M).

        Returns:
            (B, H, Tq, M).
        """
        raise NotImplementedError

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Attend as `LlamaAttention` does.

        Args:
            hidden_states: (B, Tq, hidden).
            position_embeddings: cos and sin of the rotary embedding, (B, Tq, D) each.
            attention_mask: (B, 1, Tq, Tk), additive; the model is built so that it is always given.
            past_key_values: A dynamic cache, or None.
            kwargs: Ignored.

        Returns:
            The output (B, Tq, hidden) and the edges (B, H, Tq, Tk).

        Raises:
            UserError: There is no mask, or the cache is not dynamic.
        """
        if attention_mask is None:
            raise UserError(
                "graph attention got no mask, but it needs the additive one of attn_implementation='eager': "
                "leave attn_implementation out"
            )
        query = self._split(self.q_proj(hidden_states), self.head_dim)  # (B, H or 2H, Tq, D)
        key = self._split(self.k_proj(hidden_states), self.head_dim)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        own = self._split(self.in_proj(hidden_states), self.width)  # (B, H, Tq, M)
        values = own
        if self.config.graph_blend:
            values = torch.cat([own, self._split(self.v_proj(hidden_states), self.head_dim)], dim=-1)
        if past_key_values is not None:
            self._check_cache(past_key_values)
            key, values = past_key_values.update(key, values, self.layer_idx)
        nodes, plain_values = values[..., : self.width], values[..., self.width :]
        scores = query @ repeat_kv(key, self.groups).transpose(2, 3) * self.head_dim**-0.5
        visible = attention_mask > torch.finfo(attention_mask.dtype).min / 2
        edges = self._edges(scores, visible)
        features = self.dropout(self.combine(edges.to(own.dtype), own, nodes) + self.in_bias)
        normed = nn.functional.rms_norm(features, (self.width,), eps=self.config.rms_norm_eps)
        out = self.out_proj(nn.functional.silu(normed * self.norm_weight))  # (B, H, Tq, D)
        if self.config.graph_blend:
            plain = weigh(scores[:, : self.heads], visible, "softmax").to(own.dtype) @ plain_values
            share = torch.sigmoid(self.blend_logit)
            out = share * out + (1 - share) * plain
        return out.transpose(1, 2).flatten(2), edges

    def _split(self, features: Tensor, width: int) -> Tensor:
        return features.unflatten(-1, (-1, width)).transpose(1, 2)  # (B, heads, T, width)

    def _edges(self, scores: Tensor, visible: Tensor) -> Tensor:
        if self.config.graph_sharpening:
            sharpness = self.log_sharpness.exp().repeat(scores.shape[1] // self.heads, 1, 1)
            scores = scores * sharpness
        weights = weigh(scores, visible, self.rule.weights)
        if self.config.graph_differential:
            first, second = weights.split(self.heads, dim=1)
            weights = torch.relu(first - torch.sigmoid(self.subtract_logit) * second)
        return threshold_edges(weights, visible, self.rule)

    def _check_cache(self, cache: Cache) -> None:
        layer = cache.layers[self.layer_idx] if self.layer_idx < len(cache.layers) else None
        if layer is not None and type(layer) is not DynamicLayer:
            raise UserError(
                f"the cache is a {type(cache).__name__} of {type(layer).__name__}, but graph attention "
                "caches node features in a DynamicCache only: leave cache_implementation out"
            )


class GinAttention(GraphAttention):
    """GIN-attention: neighbours are summed by attention, and a learned eps weighs the token itself."""

    def __init__(self, config: GraphLlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.eps = nn.Parameter(torch.zeros(self.heads, 1, 1))

    def combine(self, edges: Tensor, own: Tensor, all_nodes: Tensor) -> Tensor:
        """z_i = sum_j A[i, j] v_j + eps v_i, (B, H, Tq, M)."""
        return edges @ all_nodes + self.eps * own


class PnaAttention(GraphAttention):
    """PNA-attention: four aggregates of the neighbours, each at three scales of the degree."""

    def __init__(self, config: GraphLlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.agg_proj = HeadwiseLinear(self.heads, (1 + AGGREGATES * SCALERS) * self.width, self.width)
        self.log_reference = math.log(config.pna_reference_degree + 1)

    def combine(self, edges: Tensor, own: Tensor, all_nodes: Tensor) -> Tensor:
        """z_i = W_agg [v_i, scalers x aggregates], (B, H, Tq, M)."""
        aggregates = pna_aggregates(edges, all_nodes)  # (B, H, Tq, 4M)
        degree = (edges > 0).sum(-1, keepdim=True)
        # A token without neighbours has aggregates 0; its degree is taken as 1 so that none is divided by 0.
        amplify = torch.log(degree.clamp(min=1) + 1.0).to(own.dtype) / self.log_reference
        scaled = [aggregates, aggregates * amplify, aggregates / amplify]
        return self.agg_proj(torch.cat([own, *scaled], dim=-1))


def pna_aggregates(edges: Tensor, nodes: Tensor, block_elements: int = PNA_BLOCK_ELEMENTS) -> Tensor:
    """Mean, max, min and standard deviation of each token's neighbours, in blocks of rows.

    Args:
        edges: (B, H, Tq, Tk), non-negative.
        nodes: (B, H, Tk, M).
        block_elements: Messages held at once.

    Returns:
        (B, H, Tq, 4M); all 0 for a token without neighbours, but for the deviation's floor.
    """
    share = edges / edges.sum(-1, keepdim=True).clamp(min=1e-6)
    mean = share @ nodes
    variance = share @ nodes.square() - mean.square()
    # The floor keeps the square root's gradient finite where all neighbours agree.
    deviation = (variance.clamp(min=0) + 1e-5).sqrt()
    rows = max(1, block_elements // (edges.shape[0] * edges.shape[1] * edges.shape[3] * nodes.shape[-1]))
    extremes = [
        checkpoint(_extremes, part, nodes, use_reentrant=False)
        if torch.is_grad_enabled()
        else _extremes(part, nodes)
        for part in edges.split(rows, dim=2)
    ]
    highest, lowest = torch.cat(extremes, dim=3)  # (B, H, Tq, M) each
    return torch.cat([mean, highest, lowest, deviation], dim=-1)


def _extremes(edges: Tensor, nodes: Tensor) -> Tensor:
    """(2, B, H, rows, M), the largest and smallest message A[i, j] v_j over the edges of each row."""
    messages = edges[..., None] * nodes[:, :, None]  # (B, H, rows, Tk, M)
    absent = (edges <= 0)[..., None]
    highest = messages.masked_fill(absent, -torch.inf).amax(-2)
    lowest = messages.masked_fill(absent, torch.inf).amin(-2)
    alone = absent.all(-2)
    return torch.stack([highest.masked_fill(alone, 0.0), lowest.masked_fill(alone, 0.0)])
