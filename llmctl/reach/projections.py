"""The projections and norms of an attention module as plain matrices, and their largest singular values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError


def spectral_norm(weight: Tensor) -> float:
    """The largest singular value of a wide matrix, through its small Gram matrix."""
    wide = weight.double()
    return math.sqrt(max(float(torch.linalg.eigvalsh(wide @ wide.T)[-1]), 0.0))


def projection(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """Weight (out, D) and bias (out,) of the "q", "k" or "v" projection, adapters included.

    They are read off the module's answers to the unit vectors, so that LoRA, quantized and transposed
    weights are all taken as the model uses them.
    """
    fused = getattr(module, "c_attn", None)
    linear = fused if fused is not None else getattr(module, f"{name}_proj", None)
    if linear is None:
        raise UserError(
            f"{type(module).__name__} has no {name}_proj, so the bound cannot be computed: use a model "
            "with separate projections (Llama, Mistral, Qwen, Gemma) or GPT-2"
        )
    parameter = next(linear.parameters())
    width = linear.nx if fused is not None else linear.in_features
    dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.float32
    with torch.inference_mode():
        bias = linear(torch.zeros(1, width, dtype=dtype, device=parameter.device)).float()
        weight = linear(torch.eye(width, dtype=dtype, device=parameter.device)).float() - bias
    weight, bias = weight.T.clone(), bias[0].clone()
    if fused is None:
        return weight, bias
    part = slice(*(index * len(bias) // 3 for index in ("qkv".index(name), "qkv".index(name) + 1)))
    return weight[part], bias[part]


def norm_gain(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gain and offset of a norm: its output is gain * z + offset with |z| at most sqrt(D)."""
    if isinstance(norm, nn.LayerNorm):
        gain = norm.weight.detach().float()
        offset = norm.bias.detach().float() if norm.bias is not None else torch.zeros_like(gain)
        return gain, offset
    weight = next(norm.parameters())
    with torch.inference_mode():  # an RMS norm leaves a vector of ones as it is, times its gain
        gain = norm(torch.ones(1, len(weight), dtype=weight.dtype, device=weight.device))[0].float()
    return gain.clone(), torch.zeros_like(gain)
