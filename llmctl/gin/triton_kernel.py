r"""The messages of a Sparse-GIN as Triton kernels: no T x T matrix in memory.

B batch, Tq queries, Tk keys, H heads, D head width, W features of a node. The first kernel walks over the
keys of a block of rows, head by head, and keeps each row's softmax maximum and sum, two (B, H, Tq) tensors.
The second walks over them block of keys by block of keys: all heads' probabilities, merged, sharpened,
thinned out, and the messages added up. Scores are thus computed twice and never kept.

`llmctl.gin.fused` says when these run and gives them a gradient. Their many parameters are what a kernel has
in place of tensors: a pointer, sizes and strides of each, and constants that are compiled in.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule

BLOCK_ROWS, BLOCK_KEYS = 32, 32
NO_MASK, BOOLEAN_MASK, ADDITIVE_MASK = 0, 1, 2
# Sizes that change with every new token: compiling for particular values of them would not end.
_CHANGING = ["queries", "keys", "offset"]


@triton.jit
def _scores(
    query_ptr, key_ptr, mask_ptr, b, h, rows, cols, queries, keys, offset, scaling, softcap, hidden,
    query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_t,
    GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, MASK: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """One head's scores (rows, cols) in float32, and which of the keys are visible."""
    d = tl.arange(0, D_PAD)
    query_at = query_ptr + b * query_b + h * query_h + rows[:, None] * query_t + d[None, :]
    query = tl.load(query_at, mask=(rows[:, None] < queries) & (d[None, :] < D), other=0.0)
    key_at = key_ptr + b * key_b + (h // GROUP) * key_h + cols[None, :] * key_t + d[:, None]
    key = tl.load(key_at, mask=(cols[None, :] < keys) & (d[:, None] < D), other=0.0)
    # Full precision: with TF32 a weight near the threshold would land on the other side of it.
    scores = tl.dot(query, key, input_precision="ieee") * scaling
    if SOFTCAP:  # tanh by way of the sigmoid, which every Triton has
        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
    inside = (rows[:, None] < queries) & (cols[None, :] < keys)
    visible = inside & (cols[None, :] <= rows[:, None] + offset)
    if MASK != 0:
        mask = tl.load(mask_ptr + b * mask_b + rows[:, None] * mask_t + cols[None, :], mask=inside, other=0)
        if MASK == 1:
            visible = visible & (mask != 0)
        else:
            scores += mask.to(tl.float32)
            visible = visible & (mask.to(tl.float32) > hidden)
    return tl.where(visible, scores, -1e30), visible


@triton.jit(do_not_specialize=_CHANGING)
def _softmax_kernel(
    query_ptr, key_ptr, mask_ptr, top_ptr, total_ptr, queries, keys, offset, scaling, softcap, hidden,
    query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_t,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, MASK: tl.constexpr,
    SOFTCAP: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The maximum and the sum of the softmax of M rows of one head of one sequence."""
    b = (tl.program_id(1) // H).to(tl.int64)
    h = tl.program_id(1) % H
    rows = tl.program_id(0) * M + tl.arange(0, M)
    reach = tl.minimum(keys, offset + (tl.program_id(0) + 1) * M)
    top = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    for start in range(0, reach, N):
        scores, visible = _scores(
            query_ptr, key_ptr, mask_ptr, b, h, rows, start + tl.arange(0, N), queries, keys, offset, scaling,
            softcap, hidden, query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_t,
            GROUP, D, D_PAD, MASK, SOFTCAP,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp(top - higher) + tl.sum(
            tl.where(visible, tl.exp(scores - higher[:, None]), 0.0), 1
        )
        top = higher
    at = (b * H + h) * queries + rows
    tl.store(top_ptr + at, top, mask=rows < queries)
    # A row that sees nothing has no edges, whatever it is divided by.
    tl.store(total_ptr + at, tl.where(total > 0, total, 1.0), mask=rows < queries)


@triton.jit(do_not_specialize=_CHANGING)
def _message_kernel(
    query_ptr, key_ptr, mask_ptr, top_ptr, total_ptr, node_ptr, out_ptr, queries, keys, offset, scaling,
    softcap, hidden, sharpness, threshold, epsilon, distance_scale,
    query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_t, node_b, node_t,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, MASK: tl.constexpr,
    SOFTCAP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, W: tl.constexpr, W_PAD: tl.constexpr,
    MERGE: tl.constexpr, SHARPEN: tl.constexpr, LOOPS: tl.constexpr, BINARY: tl.constexpr, FADE: tl.constexpr,
):  # fmt: skip
    """The messages of M rows of one sequence."""
    b = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    w = tl.arange(0, W_PAD)
    messages = tl.zeros((M, W_PAD), tl.float32)
    for start in range(0, tl.minimum(keys, offset + (tl.program_id(0) + 1) * M), N):
        cols = start + tl.arange(0, N)
        edges = tl.zeros((M, N), tl.float32)
        seen = tl.zeros((M, N), tl.int32)
        for h in range(H):
            scores, visible = _scores(
                query_ptr, key_ptr, mask_ptr, b, h, rows, cols, queries, keys, offset, scaling,
                softcap, hidden, query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_t,
                GROUP, D, D_PAD, MASK, SOFTCAP,
            )  # fmt: skip
            at = (b * H + h) * queries + rows
            top = tl.load(top_ptr + at, mask=rows < queries, other=0.0)
            total = tl.load(total_ptr + at, mask=rows < queries, other=1.0)
            weights = tl.where(visible, tl.exp(scores - top[:, None]) / total[:, None], 0.0)
            edges = tl.maximum(edges, weights) if MERGE == "any" else edges + weights
            seen = visible.to(tl.int32)  # the mask is shared by the heads
        if MERGE == "mean":
            edges = edges / H
        if MERGE == "sum":
            edges = tl.minimum(edges, 1.0)
        if SHARPEN:
            edges = tl.sigmoid(sharpness * (edges - threshold))
        keep = (seen != 0) & (edges > epsilon)
        distance = rows[:, None] + offset - cols[None, :]
        if LOOPS == "drop":
            keep = keep & (distance != 0)
        if LOOPS == "only":
            keep = keep & (distance == 0)
        edges = tl.where(keep, 1.0 if BINARY else edges, 0.0)
        if FADE:
            edges = edges * tl.exp(-tl.maximum(distance, 0).to(tl.float32) / distance_scale)
        node_at = node_ptr + b * node_b + cols[:, None] * node_t + w[None, :]
        nodes = tl.load(node_at, mask=(cols[:, None] < keys) & (w[None, :] < W), other=0.0)
        messages += tl.dot(edges.to(nodes.dtype), nodes, input_precision="ieee")
    out_at = out_ptr + (b * queries + rows[:, None]) * W + w[None, :]
    tl.store(out_at, messages.to(out_ptr.dtype.element_ty), mask=(rows[:, None] < queries) & (w[None, :] < W))


def send_fused(inputs: AttentionInputs, rule: GraphRule, nodes: Tensor) -> Tensor:
    """The messages of `llmctl.gin.messages.send_messages`, without a gradient.

    Args:
        inputs: Queries and keys, and a mask shared by the heads or none.
        rule: A rule that `llmctl.gin.fused.covers` accepts.
        nodes: (B, Tk, W).

    Returns:
        (B, Tq, W), in the dtype of `nodes`.
    """
    batch, heads, queries, width = inputs.query.shape
    keys, features = nodes.shape[1:]
    query, key, nodes = (_rows_whole(tensor) for tensor in (inputs.query, inputs.key, nodes))
    mask, mask_strides, kind, hidden = _mask_of(inputs)
    top, total = torch.empty(2, batch, heads, queries, device=query.device, dtype=torch.float32)
    out = torch.empty(batch, queries, features, device=query.device, dtype=nodes.dtype)
    sizes = (queries, keys, inputs.offset, inputs.scaling, inputs.softcap or 1.0, hidden)
    strides = (*query.stride()[:3], *key.stride()[:3], *mask_strides)
    constants: dict[str, Any] = {
        "H": heads, "GROUP": heads // inputs.key.shape[1], "D": width, "D_PAD": _padded(width), "MASK": kind,
        "SOFTCAP": inputs.softcap is not None, "M": BLOCK_ROWS, "N": BLOCK_KEYS,
    }  # fmt: skip
    blocks = triton.cdiv(queries, BLOCK_ROWS)
    with torch.cuda.device(query.device) if query.is_cuda else nullcontext():
        _softmax_kernel[(blocks, batch * heads)](query, key, mask, top, total, *sizes, *strides, **constants)
        _message_kernel[(blocks, batch)](
            query, key, mask, top, total, nodes, out, *sizes,
            rule.sharpness or 0.0, rule.threshold, rule.epsilon, rule.distance_scale or 1.0,
            *strides, *nodes.stride()[:2], **constants,
            W=features, W_PAD=_padded(features), MERGE=rule.heads, SHARPEN=rule.sharpness is not None,
            LOOPS=rule.self_loops, BINARY=not rule.edge_weights, FADE=rule.distance_scale is not None,
        )  # fmt: skip
    return out


def _mask_of(inputs: AttentionInputs) -> tuple[Tensor, tuple[int, int], int, float]:
    """The mask as (B, 1, Tq, Tk), its strides of sequence and row, its kind, and below what it hides."""
    mask = inputs.mask
    if mask is None:
        return inputs.query, (0, 0), NO_MASK, 0.0
    shape = (inputs.query.shape[0], 1, inputs.query.shape[2], inputs.key.shape[2])
    mask = _rows_whole(mask.expand(shape))
    if mask.dtype == torch.bool:
        return mask.view(torch.uint8), (mask.stride(0), mask.stride(2)), BOOLEAN_MASK, 0.0
    return mask, (mask.stride(0), mask.stride(2)), ADDITIVE_MASK, torch.finfo(mask.dtype).min / 2


def _rows_whole(tensor: Tensor) -> Tensor:
    """The kernels step through the last dimension by one."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _padded(width: int) -> int:
    """Widths of blocks are powers of two, and matrix products need 16 at least."""
    return max(16, triton.next_power_of_2(width))
