"""Greedy coordinate gradient: swap the tokens that the gradient proposes, keep what lowers the loss.

Source: Zou et al., arXiv 2307.15043, algorithm 1; the schedule of arXiv 2310.04444 uses it for k >= 4.
It differs from the published code in five ways, each of which a phase can switch off: the next step starts
from the best control so far (not from the last step's), candidates are taken in the order of the gradient
and never twice, a step may swap several positions, several starting points are kept, and the search stops
at the first hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from llmctl.reach.result import Step
from llmctl.reach.search.candidates import extends_right, lengthen, promising_first
from llmctl.reach.search.config import Phase
from llmctl.reach.search.methods.registry import SearchMethod
from llmctl.reach.search.state import Search


def run_gcg(search: Search, phase: Phase) -> Iterator[Step]:
    """Search at length `phase.k` from the best control of that length, or of the next shorter one.

    Args:
        search: The problem; its best control of length k is updated.
        phase: `steps` gradients at most, with `candidates` controls per gradient; at each position the
            `top_k` tokens of steepest descent are proposed.

    Yields:
        One step per gradient.
    """
    k = phase.k
    buffer = _Buffer(phase.buffer if phase.keep_best else 1)
    start, spent = _start(search, phase)
    for control, loss in start:
        buffer.offer(control, loss)
    if spent:
        yield search.step(phase.method, k)
    for _ in range(phase.steps - spent):
        if buffer.is_empty or (phase.stop_early and search.is_solved(k)):
            return
        entry = buffer.next()
        if entry.slopes is None:
            entry.slopes = search.scorer.gradient(entry.control)[0][:, search.tokens].cpu()
        controls = _candidates(search, entry.control, entry.slopes, phase)
        if len(controls) == 0:
            entry.is_spent = True
            continue
        controls, losses = search.evaluate(
            controls, phase.method, base=entry.control, stop_early=phase.stop_early
        )
        if not phase.keep_best:
            buffer.clear()
        for row in losses.argsort()[: phase.buffer].tolist():
            buffer.offer(controls[row].clone(), float(losses[row]))
        if k in search.best:
            yield search.step(phase.method, k)


class _Entry:
    """A starting point and its gradient, which is computed once."""

    def __init__(self, control: Tensor, loss: float) -> None:
        self.control, self.loss = control, loss
        self.slopes: Tensor | None = None  # (K, M) by the allowed tokens
        self.uses = 0
        self.is_spent = False


class _Buffer:
    """The best few controls so far, as in the attack buffer of arXiv 2402.12329."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: list[_Entry] = []

    @property
    def is_empty(self) -> bool:
        return all(entry.is_spent for entry in self._entries)

    def clear(self) -> None:
        self._entries = []

    def offer(self, control: Tensor, loss: float) -> None:
        if any(torch.equal(control, entry.control) for entry in self._entries):
            return
        self._entries.append(_Entry(control, loss))
        self._entries.sort(key=lambda entry: entry.loss)
        del self._entries[self._size :]

    def next(self) -> _Entry:
        """The best entry among those that were used least often."""
        entry = min((e for e in self._entries if not e.is_spent), key=lambda e: (e.uses, e.loss))
        entry.uses += 1
        return entry


def _start(search: Search, phase: Phase) -> tuple[list[tuple[Tensor, float]], int]:
    """Starting controls of length k with their losses, and the steps that finding them took."""
    k = phase.k
    if k in search.best:
        return [(search.best[k].control, search.best[k].loss)], 0
    base = search.longest(k)
    control = base.control if base is not None else torch.empty(0, dtype=torch.long)
    missing = k - len(control)
    if not phase.ordered or missing > 1:
        drawn = torch.randint(len(search.tokens), (missing - phase.ordered,), generator=search.generator)
        filler = search.tokens[drawn]
        control = torch.cat([control, filler] if extends_right(search.scorer.layout) else [filler, control])
    if not phase.ordered:
        _, losses = search.evaluate(control[None], phase.method, stop_early=phase.stop_early)
        # A filler that does not survive decoding is still a point at which the gradient can be taken.
        return [(control, float(losses[0]) if len(losses) else float("inf"))], 0
    controls = search.fresh(lengthen(control, promising_first(search, control), search.scorer.layout))
    controls, losses = search.evaluate(
        controls[: phase.candidates], phase.method, stop_early=phase.stop_early
    )
    order = losses.argsort()[: phase.buffer].tolist()
    return [(controls[row].clone(), float(losses[row])) for row in order], 1 if order else 0


def _candidates(search: Search, control: Tensor, slopes: Tensor, phase: Phase) -> Tensor:
    """(N, K) controls to score next, the most promising first if the phase is ordered."""
    top_k = min(phase.top_k, slopes.shape[1])
    top = (-slopes).topk(top_k, dim=1)  # values and indices into `tokens`, (K, top_k)
    if not phase.ordered:
        return _sampled(search, control, top.indices, phase.candidates, phase.swaps)
    own = slopes.gather(1, torch.searchsorted(search.tokens, control).clamp(max=slopes.shape[1] - 1)[:, None])
    gain = top.values + own  # (K, top_k) expected fall of the loss, to first order
    ranked = gain.flatten().argsort(descending=True)
    place, column = ranked // top_k, ranked % top_k
    best = control.repeat(len(ranked), 1)
    best[torch.arange(len(ranked)), place] = search.tokens[top.indices[place, column]]
    best = search.fresh(best)
    if len(control) == 1 or phase.swaps == 1:
        half = len(best) if len(control) == 1 else (phase.candidates + 1) // 2
    else:
        half = (phase.candidates + 1) // 2
    sampled = _sampled(search, control, top.indices, phase.candidates, phase.swaps)
    return search.fresh(torch.cat([best[:half], sampled, best[half:]]))[: phase.candidates]


def _sampled(search: Search, control: Tensor, top: Tensor, count: int, swaps: int) -> Tensor:
    """(N, K) controls in which up to `swaps` random positions hold a random one of their top tokens."""
    generator = search.generator
    k = len(control)
    controls = control.repeat(count, 1)
    rows = torch.arange(count)
    places = torch.rand(count, k, generator=generator).argsort(1)[:, :swaps]  # distinct positions
    # The first half swaps one position, the rest one more each, up to `swaps`.
    for depth in range(places.shape[1]):
        from_row = 0 if depth == 0 else count - count // 2**depth
        chosen = torch.randint(top.shape[1], (count,), generator=generator)
        place = places[:, depth]
        new = search.tokens[top[place, chosen]]
        where = rows[from_row:]
        controls[where, place[from_row:]] = new[from_row:]
    return controls


def _sizes(candidates: int, steps: int) -> Mapping[str, int]:
    return {"candidates": candidates, "steps": steps}


METHOD = SearchMethod(
    run=run_gcg,
    label="GCG at every k",
    summary="Swaps the tokens that the gradient proposes (greedy coordinate gradient).",
    sizes=_sizes,
    reads=("candidates", "steps", "top_k", "swaps", "buffer", "stop_early", "keep_best", "ordered"),
    needs_candidates=True,
    colour="#d1495b",
    marker="D",
)
