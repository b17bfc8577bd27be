"""When one fused Triton kernel computes Sparse-GIN's messages, and their gradient.

The kernel runs on CUDA where Triton is installed and the rule is one that it supports; the plain path of
`llmctl.gin.messages` runs everywhere else. The environment variable LLMCTL_TRITON changes that: "off" always
takes the plain path, "on" takes the kernel wherever it supports the rule (on a CPU only under Triton's
interpreter).

Both compute the same sums in another order. In half precision the kernel keeps scores in float32, where the
plain path rounds them, so an edge whose weight is within that rounding of epsilon may be there in one and not
in the other.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmctl.errors import UserError
from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule, Mix, adjacency
from llmctl.gin.messages import row_blocks, send_messages

SWITCH = "LLMCTL_TRITON"
_DTYPES = {torch.float32, torch.bfloat16, torch.float16}


def is_wanted(device: torch.device) -> bool:
    """Whether the kernel is to run on a device, as far as the rule allows.

    Raises:
        UserError: The switch has another value than auto, on or off, or asks for Triton where there is none.
    """
    value = os.environ.get(SWITCH, "auto")
    if value not in ("auto", "on", "off"):
        raise UserError(f"{SWITCH} is {value!r}, but it must be auto, on or off")
    has_triton = find_spec("triton") is not None
    if value == "on" and not has_triton:
        raise UserError(f"{SWITCH} is on, but Triton is not installed: pip install triton, or set it to auto")
    return value == "on" or (value == "auto" and device.type == "cuda" and has_triton)


def covers(inputs: AttentionInputs, rule: GraphRule, nodes: Tensor) -> bool:
    """Whether the kernel supports these messages.

    It does not support one graph per head, the learned mix, a top fraction, or different masks per head.
    """
    mask = inputs.mask
    shared = mask is None or (mask.shape[1] == 1 and mask.dtype in {torch.bool, *_DTYPES})
    known = rule.heads in ("sum", "mean", "any") and rule.top_fraction is None
    same = inputs.query.dtype == inputs.key.dtype
    return shared and known and same and {inputs.query.dtype, nodes.dtype} <= _DTYPES


def pass_messages(inputs: AttentionInputs, rule: GraphRule, nodes: Tensor, mix: Mix | None = None) -> Tensor:
    """Aggregate messages with the kernel where it is wanted and supports the rule, else with the plain path.

    Arguments and result are those of `llmctl.gin.messages.send_messages`.
    """
    if is_wanted(nodes.device) and covers(inputs, rule, nodes):
        return fused_messages(inputs, rule, nodes)
    return send_messages(inputs, rule, nodes, mix)


def fused_messages(inputs: AttentionInputs, rule: GraphRule, nodes: Tensor) -> Tensor:
    """The messages by the kernel, with a gradient to queries, keys and nodes.

    Args:
        inputs: Queries and keys; `covers` must accept them.
        rule: How attention becomes edges.
        nodes: (B, Tk, W).

    Returns:
        (B, Tq, W), in the dtype of `nodes`.
    """
    return _Fused.apply(inputs.query, inputs.key, nodes, inputs, rule)


class _Fused(torch.autograd.Function):
    """The kernel forward; backward, the plain path again, one block of rows after the other."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, nodes: Tensor, inputs: AttentionInputs, rule: GraphRule
    ) -> Tensor:
        from llmctl.gin.triton_kernel import send_fused

        ctx.save_for_backward(query, key, nodes)
        # Queries and keys are kept above, where autograd watches them, and not a second time here.
        ctx.rest, ctx.rule = replace(inputs, query=query.new_empty(0), key=key.new_empty(0)), rule
        return send_fused(inputs, rule, nodes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, message_grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: under checkpointing a second look is an error
        query, key, nodes = saved
        needed = ctx.needs_input_grad[:3]
        grads = [torch.zeros_like(t) if n else None for t, n in zip(saved, needed, strict=True)]
        whole = replace(ctx.rest, query=query, key=key)
        for start, stop in row_blocks(whole):
            part = whole.rows(start, stop)
            reach = part.key.shape[2]
            pieces = [part.query, part.key, nodes[:, :reach]]
            leaves = [t.detach().requires_grad_(n) for t, n in zip(pieces, needed, strict=True)]
            with torch.enable_grad():
                edges = adjacency(
                    replace(part, query=leaves[0], key=leaves[1]), ctx.rule
                )  # (B, 1, rows, reach)
                messages = edges[:, 0].to(nodes.dtype) @ leaves[2]
            wanted = [leaf for leaf, n in zip(leaves, needed, strict=True) if n]
            # Edges without weights pass no gradient on to the queries and keys.
            found = iter(
                torch.autograd.grad(messages, wanted, message_grad[:, start:stop], allow_unused=True)
            )
            spots = (slice(start, stop), slice(reach), slice(reach))
            for grad, spot in zip(grads, spots, strict=True):
                piece = None if grad is None else next(found)
                if grad is not None and piece is not None:
                    grad[..., spot, :] += piece
        return *grads, None, None
