"""The attention hook: it reads queries, keys and mask of a frozen attention layer and changes nothing.

The graph needs the queries and keys after rotary embedding, query/key norms and LoRA, as the layer itself
made them. All supported families end in one call of transformers' attention interface, whose function is
chosen by `config._attn_implementation`. A hooked attention module gets a view of its config that differs in
this one attribute; the function registered under that name passes query, key and mask to the adapter and
calls what the model's own config names, SDPA or eager. Compared with the other ways:

- the model's config is untouched, so masks are built for the model's own implementation (a name without a
  registered mask function silently gets no mask at all), and `set_attn_implementation` keeps working;
- the model does not have to return attention weights, so SDPA stays and no T x T matrix of all heads is kept;
- nothing of a family's projections is repeated here, so biases, query/key norms, grouped heads and other
  adapters inside the attention are all included.

One thing to know about Gemma 2: transformers' SDPA leaves out the soft cap of its scores, eager applies it.
The graph always applies it, as the model was trained; load Gemma 2 with attn_implementation="eager" and
both agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from llmctl.errors import UserError

ATTENTION_NAME = "llmctl_sparse_gin"
Receiver = Callable[[Tensor, Tensor, Tensor | None, dict[str, Any]], None]


class HookedConfig:
    """A view of a model's config that names the hook as attention implementation."""

    _attn_implementation = ATTENTION_NAME

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        # Copies look up dunder names and `base` before `base` is set: never look those up in the base.
        if name == "base" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.base, name)


def hooked_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention function: pass queries, keys and mask to the module's receiver, then run the model's own.

    Args:
        module: The hooked attention module.
        query: (B, H, Tq, D).
        key: (B, Hkv, Tk, D).
        value: (B, Hkv, Tk, D).
        mask: (B, 1, Tq, Tk), boolean or additive, or None for plain causal.
        kwargs: Further arguments of the attention function (scaling, dropout, softcap, ...).

    Returns:
        What the model's own attention function returns.

    Raises:
        UserError: The model's implementation is neither SDPA nor eager, or attention is not causal.
    """
    name = module.config.base._attn_implementation
    if name not in ("sdpa", "eager"):
        raise UserError(
            f"attn_implementation is {name!r}, but Sparse-GIN needs the mask that only 'sdpa' and 'eager' "
            "get: call model.set_attn_implementation('sdpa')"
        )
    if kwargs.get("is_causal") is False or kwargs.get("cache") is not None:
        raise UserError(
            "this call's attention is not causal or runs on paged memory, but Sparse-GIN needs causal "
            "attention over a dynamic cache: use plain generation"
        )
    module.gin_receiver(query, key, mask, kwargs)
    delegate = AttentionInterface().get_interface(name, _eager_of(module))
    return delegate(module, query, key, value, mask, **kwargs)


def add_attention_hook(attention: Any, receiver: Receiver) -> None:
    """Make an attention module pass its queries, keys and mask to a receiver.

    Raises:
        UserError: The module does not use transformers' attention interface, or its attention is not causal.
    """
    if not callable(_eager_of(attention)) or not hasattr(attention, "config"):
        raise UserError(
            f"{type(attention).__name__} does not use transformers' attention interface, but Sparse-GIN "
            "reads queries and keys there: use another family or a newer transformers"
        )
    if not getattr(attention, "is_causal", True):
        raise UserError(f"{type(attention).__name__} is not causal, but Sparse-GIN needs a causal decoder")
    if getattr(attention, "reorder_and_upcast_attn", False):
        raise UserError(
            "reorder_and_upcast_attn is True, but that attention bypasses transformers' attention interface: "
            "set it to False in the model's config"
        )
    attention.gin_receiver = receiver
    attention.config = HookedConfig(attention.config)


def remove_attention_hook(attention: Any) -> None:
    """Undo `add_attention_hook`: the module gets its own config back."""
    attention.config = attention.config.base
    del attention.gin_receiver


def register_attention_hook() -> None:
    """Register the hook as an attention function of transformers."""
    AttentionInterface.register(ATTENTION_NAME, hooked_attention)


def _eager_of(attention: nn.Module) -> Any:
    """The eager attention function in the module of the attention class, which the family falls back on."""
    return getattr(sys.modules[type(attention).__module__], "eager_attention_forward", None)
