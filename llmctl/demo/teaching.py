"""Settings of the two training stages of the demo's vision-language model, and what both stages share.

Alignment (`alignment`): vision encoder and projector learn to output the embeddings of the caption's words,
without any forward pass through the language model. Captions (`captions`): the same weights learn, through
the frozen language model, that the answer to a question about a picture is its caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TeachSettings:
    """How long the model is trained in each stage, and with which learning rates."""

    pictures: int = 16_000
    """Number of training pictures; each is used several times, shifted and mirrored."""
    word_steps: int = 900
    """Optimizer steps of the alignment with words."""
    word_batch: int = 64
    """Pictures per step of the alignment."""
    muon_rate: float = 0.02
    """Learning rate of the vision encoder's matrices during the alignment."""
    adam_rate: float = 1e-3
    """Learning rate of all other weights during the alignment."""
    sentence_steps: int = 48
    """Optimizer steps on captions."""
    sentence_batch: int = 16
    """Pictures per step on captions."""
    sentence_rate: float = 3e-4
    """Learning rate on captions."""
    seed: int = 0
    """Seed for weights, pictures and batches."""


def without(weights: Iterable[Tensor], taken: Sequence[Tensor]) -> list[Tensor]:
    """The weights that are not among `taken`."""
    known = {id(weight) for weight in taken}
    return [weight for weight in weights if id(weight) not in known]


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """A learning rate that rises over the first tenth of the steps, then falls to zero."""
    rate = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )


def optimizer_step(
    loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], weights: Sequence[Tensor]
) -> None:
    """One step of several optimizers on one loss, with gradients clipped to norm 1."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in optimizers:
        optimizer.step()
