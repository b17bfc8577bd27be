"""Candidates for the next control: swaps that slopes propose, swaps at random, whole controls at random."""

from __future__ import annotations

import torch
from torch import Tensor


def swaps(
    tokens: Tensor,
    control: Tensor,
    slopes: Tensor,
    count: int,
    *,
    top_k: int,
    skip: int,
    generator: torch.Generator,
) -> Tensor:
    """Controls that differ from one in a single token, half by rank and half drawn from the top.

    The first half are the swaps that promise the greatest fall of the loss to first order; the second
    half draws a position and one of its `top_k` tokens uniformly, as in algorithm 1 of arXiv 2307.15043.
    Where `count` covers all ranked swaps, they are all there.

    Args:
        tokens: (M,) allowed token ids, ascending.
        control: (K,) token ids out of `tokens`.
        slopes: (K, M) gradient of the loss by each position's one-hot entries.
        count: N, controls at most.
        top_k: Number of tokens per position that count as promising.
        skip: Ranks to leave out, since steps before tried them; wraps around.
        generator: Draws the second half.

    Returns:
        (N, K) different controls, the promising first; fewer where there are no more.
    """
    top_k = min(top_k, len(tokens))
    top = (-slopes).topk(top_k, dim=1)  # values and places in `tokens`, (K, top_k)
    own = slopes.gather(1, torch.searchsorted(tokens, control)[:, None])  # (K, 1)
    ranked = (top.values + own).flatten().argsort(descending=True, stable=True)
    half = len(ranked) if count >= len(ranked) else (count + 1) // 2
    ranked = ranked[(torch.arange(half) + skip) % len(ranked)]
    drawn = torch.randint(len(control) * top_k, (count,), generator=generator)
    chosen = torch.cat([ranked, drawn])
    place, column = chosen // top_k, chosen % top_k
    controls = control.repeat(len(chosen), 1)
    controls[torch.arange(len(chosen)), place] = tokens[top.indices[place, column]]
    return distinct(controls, control)[:count]


def extensions(
    tokens: Tensor, base: Tensor, slopes: Tensor, count: int, *, skip: int, to_the_right: bool
) -> Tensor:
    """(N, K + 1) controls: `base` (K,) with one more token, in the order of `slopes` (M,) at its place.

    Args:
        tokens: (M,) allowed token ids.
        base: (K,) token ids.
        slopes: (M,) gradient of the loss at the new place.
        count: N, controls at most.
        skip: Ranks to leave out, since steps before tried them; wraps around.
        to_the_right: Whether the new token is the last one, else the first.
    """
    order = slopes.argsort(stable=True)
    chosen = order[(torch.arange(min(count, len(order))) + skip) % len(order)]
    new, old = tokens[chosen][:, None], base.expand(len(chosen), -1)
    return torch.cat([old, new] if to_the_right else [new, old], 1)


def whole(tokens: Tensor, k: int, count: int, generator: torch.Generator) -> Tensor:
    """(N, k) different controls drawn uniformly; fewer than `count` where two draws agree."""
    return distinct(tokens[torch.randint(len(tokens), (count, k), generator=generator)])


def distinct(controls: Tensor, without: Tensor | None = None) -> Tensor:
    """The controls (N, K), each once and in their order, without one of them (K,)."""
    unique, inverse = controls.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(controls))
    first = torch.full((len(unique),), len(controls)).scatter_reduce_(0, inverse, rows, "amin")
    keep = rows == first[inverse]
    if without is not None:
        keep &= (controls != without).any(1)
    return controls[keep]
