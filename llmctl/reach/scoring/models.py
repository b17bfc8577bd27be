"""The properties of a model that scoring depends on: its kind, its vocabulary and its context."""

from __future__ import annotations

from typing import Any

from llmctl.errors import UserError


def check_model(model: Any) -> None:
    """Refuse a model that does not decode from left to right.

    Raises:
        UserError: The model is an encoder, or an encoder with a decoder.
    """
    config = model.config
    if config.is_encoder_decoder or not model.can_generate():
        raise UserError(
            f"the model is a {type(model).__name__} ({config.model_type}), but reach needs a decoder-only "
            "language model: load one with AutoModelForCausalLM"
        )


def vocabulary_of(model: Any) -> int:
    """Number of rows of the model's input embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def context_of(model: Any) -> int | None:
    """Number of tokens that the model can read, or None where its configuration does not say."""
    config = model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(length) if length else None
