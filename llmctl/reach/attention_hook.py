"""What every attention layer of a model computes at the last token of a prompt, read off while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError

_HOOK = "llmctl_reach_hook"  # name under which transformers' attention interface knows the hook


@dataclass(frozen=True)
class LayerAttention:
    """One layer's attention at the last token of a prompt, in float32."""

    layer: int
    module: Any  # the attention module
    norm: nn.Module  # the norm in front of it
    inputs: Tensor  # (T, D) what the projections read
    queries: Tensor  # (H, E) at the last token, with position embedding; E is the key width
    logits: Tensor  # (H, T) scaled, capped and masked
    values: Tensor  # (H, T, E)
    scaling: float
    softcap: float | None
    groups: int  # query heads that share one key and value head


def attention_of(model: Any, prompt: Sequence[int]) -> list[LayerAttention]:
    """What every attention layer computes at the last token of a prompt.

    Raises:
        UserError: The attention cannot be hooked, or has no norm in front.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen: dict[int, dict[str, Any]] = {}
    with _hooked(base, seen), torch.inference_mode():
        base(input_ids=torch.tensor([list(prompt)], device=base.device), use_cache=False)
    if not seen:
        raise UserError(
            f"the attention of {type(base).__name__} does not go through transformers' attention interface, "
            "so the bound cannot be computed: use a model whose attention does (Llama, Qwen, Gemma, GPT-2)"
        )
    return [_layer_attention(layer, seen[layer], base) for layer in sorted(seen)]


def _layer_attention(layer: int, seen: dict[str, Any], model: Any) -> LayerAttention:
    module = seen["module"]
    query, key, value = (seen[name][0].float() for name in ("query", "key", "value"))  # (H or G, T, E)
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    logits = (query[:, -1:] @ key.transpose(1, 2))[:, 0] * seen["scaling"]
    if seen["softcap"]:
        logits = seen["softcap"] * torch.tanh(logits / seen["softcap"])
    if seen["mask"] is not None:
        logits = logits + seen["mask"][0, 0, -1, : logits.shape[1]].float()
    return LayerAttention(
        layer=layer,
        module=module,
        norm=_norm_before(model, module),
        inputs=seen["inputs"].float(),
        queries=query[:, -1],
        logits=logits,
        values=value,
        scaling=seen["scaling"],
        softcap=seen["softcap"],
        groups=groups,
    )


def _norm_before(model: Any, module: nn.Module) -> nn.Module:
    """The norm whose output the attention reads."""
    for parent in model.modules():
        if any(child is module for child in parent.children()):
            for name in ("input_layernorm", "ln_1"):
                if isinstance(norm := getattr(parent, name, None), nn.Module):
                    return norm
    raise UserError(
        f"{type(module).__name__} has no norm in front, so a control token's representation has no bound: "
        "use a model with pre-normalization (Llama, Mistral, Qwen, Gemma, GPT-2)"
    )


@contextmanager
def _hooked(model: Any, seen: dict[int, dict[str, Any]]) -> Iterator[None]:
    """Record queries, keys, values and inputs of every attention layer while the block runs."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import eager_mask

    def hook(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        if options.get("s_aux") is not None:
            raise UserError("this model's attention has learned sinks, which the bound does not cover")
        scaling = options.get("scaling")
        seen[module.layer_idx] = {
            "module": module,
            "query": query.detach(),
            "key": key.detach(),
            "value": value.detach(),
            "mask": mask,
            "scaling": float(scaling if scaling is not None else query.shape[-1] ** -0.5),
            "softcap": options.get("softcap"),
            "inputs": inputs.pop(id(module)),
        }
        return eager(module, query, key, value, mask, **options)

    def eager(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        softcap = options.pop("softcap", None)
        if not softcap:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        logits = query @ key.transpose(2, 3) * options["scaling"]
        logits = softcap * torch.tanh(logits / softcap) + mask
        return (logits.softmax(-1) @ value).transpose(1, 2), None

    inputs: dict[int, Tensor] = {}

    def remember(module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = kwargs.get("hidden_states", args[0] if args else None)
        if isinstance(hidden, Tensor):
            inputs[id(module)] = hidden[0].detach()

    before = model.config._attn_implementation
    AttentionInterface.register(_HOOK, hook)
    AttentionMaskInterface.register(_HOOK, eager_mask)
    attentions = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "config")]
    handles = [m.register_forward_pre_hook(remember, with_kwargs=True) for m in attentions]
    model.set_attn_implementation(_HOOK)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
