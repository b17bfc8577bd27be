"""Sampling: conversations in, completions and log-probabilities out, engines behind one interface."""

from llmctl.messages import Conversation, Message
from llmctl.sampling.open import ENGINES, open_sampler
from llmctl.sampling.types import (
    Completion,
    Sampler,
    SamplerInfo,
    ScoringSampler,
    Settings,
    TokenSampler,
    Usage,
)

__all__ = [
    "ENGINES",
    "Completion",
    "Conversation",
    "Message",
    "Sampler",
    "SamplerInfo",
    "ScoringSampler",
    "Settings",
    "TokenSampler",
    "Usage",
    "open_sampler",
]
