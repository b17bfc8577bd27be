"""Where the residual stream of a decoder layer can be reached, for each family of models.

A decoder layer computes, with x the residual stream,

    h = x + attention_branch(x),    y = h + mlp_branch(h),

and only its own code can add to h or y. What is added to the *last module of a branch*, though, is added to
the stream. A layout names those modules, so that one adapter serves every family without copying its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from llmctl.errors import UserError

Placement = Literal["before_mlp", "after_mlp", "parallel"]


@dataclass(frozen=True)
class DecoderLayout:
    """Names of a decoder layer's modules, relative to the layer."""

    layers: str  # name of the list of decoder layers
    attention: str  # the self-attention; calls transformers' attention interface
    attention_end: str  # its output is added to x
    mlp_start: str  # its input is h
    mlp_end: str  # its output is added to h

    def missing(self, layer: nn.Module) -> list[str]:
        """Names of the modules that this layer lacks."""
        names = {self.attention, self.attention_end, self.mlp_start, self.mlp_end}
        return sorted(name for name in names if not isinstance(getattr(layer, name, None), nn.Module))

    def pattern(self, layers: list[int] | None) -> str:
        """A regular expression for the full names of the decoder layers, those of a vision tower left out."""
        index = r"\d+" if layers is None else "(?:" + "|".join(map(str, layers)) + ")"
        return rf"(?!.*(?:vision|visual|image|audio)).*\b{self.layers}\.{index}"


_PRE_NORM = DecoderLayout("layers", "self_attn", "self_attn", "post_attention_layernorm", "mlp")
_SANDWICH = DecoderLayout(
    "layers",
    "self_attn",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)

LAYOUTS: dict[str, DecoderLayout] = {
    "llama": _PRE_NORM,
    "mistral": _PRE_NORM,
    "qwen2": _PRE_NORM,
    "qwen3": _PRE_NORM,
    "smollm3": _PRE_NORM,
    "gemma": _PRE_NORM,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gpt2": DecoderLayout("h", "attn", "attn", "ln_2", "mlp"),
}


def layout_of(model_type: str) -> DecoderLayout:
    """The layout of a family, by its transformers model type.

    Raises:
        UserError: The family is not known; the message says what a layout for it would have to name.
    """
    if model_type not in LAYOUTS:
        raise UserError(
            f"model type {model_type!r} has no layout for Sparse-GIN (known: {', '.join(LAYOUTS)}): missing "
            "are the names of its layer list, its attention, the last module before each of the two residual "
            "additions and the first module after the first; add them to llmctl.gin.layouts.LAYOUTS"
        )
    return LAYOUTS[model_type]
