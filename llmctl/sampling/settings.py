"""Sections of a recipe that say which engine samples, and how."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llmctl.runs import Recipe


class EngineSettings(Recipe):
    """Which engine runs a model."""

    engine: str = "auto"
    """auto, transformers, vllm or server; a model that reads images also has image-text."""
    options: dict[str, Any] = {}
    """Options of that engine's sampler: max_batch, dtype, quantization, tensor_parallel, base_url, ..."""


class SamplingSettings(Recipe):
    """How attempts are sampled, in collection and in evaluation."""

    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass that nucleus sampling keeps; 1 keeps every token."""
    max_tokens: int = Field(default=256, ge=1)
    """Maximum number of new tokens per attempt."""
    window: int | None = Field(default=None, ge=1)
    """Number of earlier attempts that stay in the prompt (the sliding window); null keeps all of them."""
    retry: str | tuple[str, ...] | None = None
    """Message that follows every attempt, or a list of them, which attempts take in turn; null takes the
    task's feedback on a wrong answer."""
