"""Which control to lengthen next: push away from what is reached, or pull towards what is not."""

from __future__ import annotations

import torch
from torch import Tensor


def push_score(logprobs: Tensor, reached: Tensor) -> Tensor:
    """Cross-entropy of each next-token distribution against the uniform one over the reached tokens.

    Args:
        logprobs: (N, V) natural logs.
        reached: (V,) True for a reached token.

    Returns:
        (N,) in nats; high means that the distribution lies away from what is reached.
    """
    return -logprobs[:, reached].mean(1)


def pull_score(logprobs: Tensor, reached: Tensor) -> Tensor:
    """Negative entropy of each next-token distribution restricted to the tokens not reached.

    Args:
        logprobs: (N, V) natural logs.
        reached: (V,) True for a reached token.

    Returns:
        (N,) in nats; high means that the distribution is sharp on something new.
    """
    if bool(reached.all()):
        return torch.zeros(len(logprobs), device=logprobs.device)
    rest = logprobs[:, ~reached].log_softmax(1)
    return (rest.exp() * rest).sum(1)
