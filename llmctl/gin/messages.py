"""Messages over the graph of an attention layer, one block of rows at a time.

Since the softmax runs over the keys, each row of a graph depends on that row alone. So messages are computed
for a *block of rows*: all heads of a few queries at a time, never a T x T matrix. That is exact for every
merge of heads, including the learned mix and the top fraction, which a block of heads would not be. With
gradients each block is recomputed in the backward pass instead of kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule, Mix, adjacency

BLOCK_ELEMENTS = 1 << 20  # attention weights (B * H * rows * Tk) held at once: 4 MiB in float32


def send_messages(
    inputs: AttentionInputs,
    rule: GraphRule,
    nodes: Tensor,
    mix: Mix | None = None,
    block_elements: int | None = None,
) -> Tensor:
    """Sum the messages to each token: message_i = sum_j A'[i, j] x_j, in blocks of rows.

    Args:
        inputs: Queries and keys of the attention layer.
        rule: How attention becomes edges.
        nodes: (B, Tk, W), the tokens' features; with one graph per head, head g reads slice g of W.
        mix: The learned mix over heads; only for heads "mix".
        block_elements: Attention weights held at once; None is `BLOCK_ELEMENTS`.

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

    found = []
    for start, stop in row_blocks(inputs, block_elements):
        part = inputs.rows(start, stop)
        features = split[:, :, : part.key.shape[2]]
        if torch.is_grad_enabled():
            found.append(
                checkpoint(
                    block, part.query, part.key, features, part, use_reentrant=False, preserve_rng_state=False
                )
            )
        else:
            found.append(block(part.query, part.key, features, part))
    return torch.cat(found, dim=2).transpose(1, 2).reshape(batch, -1, width)


def row_blocks(inputs: AttentionInputs, block_elements: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose attention weights together number at most `block_elements`, or one row."""
    batch, heads, queries, _ = inputs.query.shape
    rows = max(1, (block_elements or BLOCK_ELEMENTS) // (batch * heads * inputs.key.shape[2]))
    for start in range(0, queries, rows):
        yield start, min(start + rows, queries)
