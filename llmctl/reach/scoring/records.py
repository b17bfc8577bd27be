"""The records of scoring, and the interface through which a search scores its controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llmctl.errors import EngineError
from llmctl.reach.problem import Layout

BLANK = -1  # in a control: not a token yet, stands for the mean embedding (gradients only)


class NotFiniteError(EngineError):
    """The model gave NaN or infinite logits, which cannot be ranked."""


@dataclass
class Meter:
    """What a search has cost so far. Counts do not depend on the machine."""

    forwards: int = 0  # sequences scored
    forward_tokens: int = 0  # tokens that went through the model, shared prefixes once
    backward_tokens: int = 0  # tokens of gradient steps

    def add(self, sequences: int, tokens: int, *, is_backward: bool = False) -> None:
        """Count one forward pass, and the backward pass over the same tokens where there is one."""
        self.forwards += sequences
        self.forward_tokens += tokens
        if is_backward:
            self.backward_tokens += tokens


@dataclass(frozen=True)
class ControlScores:
    """The scores of N controls, in their order, on the CPU."""

    loss: Tensor  # (N,) mean cross-entropy over the target tokens, nats
    is_hit: Tensor  # (N,) every target token is the argmax
    margin: Tensor  # (N,) the target's logit minus the best other, the least over the target tokens


class ControlScoring(Protocol):
    """The interface between a search and its scorer; `Scorer` and `AskingScorer` implement it."""

    model: Any
    layout: Layout
    meter: Meter
    device: torch.device

    def score(self, controls: Tensor, base: Tensor | None = None) -> ControlScores:
        """Loss, hit and margin of each control (N, K)."""
        ...

    def base(self) -> tuple[int, ControlScores]:
        """The state without a control: rank of the first target token, and its scores."""
        ...

    def gradient(self, control: Tensor) -> tuple[Tensor, float]:
        """Gradient of the loss by the one-hot tokens of a control (K,), and the loss."""
        ...

    def emits(self, prompt: list[int]) -> bool:
        """Whether greedy decoding of one prompt, alone, emits the target."""
        ...


def reduce_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, hit and margin of each row.

    Args:
        logits: (B, M, V) at the M positions that predict the target.
        target: (M,) token ids of all rows alike, or (B, M) of each; `BLANK` where a target has ended.

    Returns:
        Mean cross-entropy in nats (B,), whether every target token is the argmax (B,), and the least
        margin of the target over the best other token (B,).
    """
    logits = logits.float()
    target = target.expand(len(logits), -1)  # (B, M)
    has_ended = target == BLANK
    own = logits.gather(-1, target.clamp(min=0)[..., None])[..., 0]  # (B, M)
    losses = (logits.logsumexp(-1) - own).masked_fill(has_ended, 0)
    top, ids = logits.topk(2, dim=-1)
    is_best = ids[..., 0] == target
    margin = own - torch.where(is_best, top[..., 1], top[..., 0])
    loss = losses.sum(-1) / (~has_ended).sum(-1)
    return loss, (is_best | has_ended).all(-1), margin.masked_fill(has_ended, torch.inf).amin(-1)
