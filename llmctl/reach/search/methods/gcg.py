"""Greedy coordinate gradient: swap the tokens that the gradient proposes, keep what lowers the loss.

Source: Zou et al., arXiv 2307.15043, algorithm 1; the schedule of arXiv 2310.04444 uses it for k >= 4.
It differs from the published code in these ways, each of which a phase can switch off: the next step starts
from the best controls so far (not from the last step's), candidates are taken in the order of the gradient
and never twice, a step may swap several positions, several starting points are kept (the buffer of
arXiv 2402.12329), and the search stops at the first hit. A starting point that is used again proposes more
tokens per position, and a search that stands still restarts from a changed copy of its best control, so
that the whole budget is spent.
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

_BETTER = 1e-4  # nats; a smaller fall of the loss is no progress
_KEPT = 2  # controls of a step that may become starting points, so that one step does not fill the buffer
_BARREN = 16  # steps in a row whose controls a filter may refuse before the search gives up


def run_gcg(search: Search, phase: Phase) -> Iterator[Step]:
    """Search at length `phase.k` from the best controls of that length and of the next shorter one.

    Args:
        search: The problem; its best control of length k is updated.
        phase: `steps` times `candidates` controls are scored, with one gradient per `candidates`; at each
            position the `top_k` tokens of steepest descent are proposed. The last `uniform` of them are
            drawn uniformly.

    Yields:
        One step per gradient.
    """
    if phase.keep_best:
        yield from _Restarting(search, phase).run()
    else:
        yield from _run_published(search, phase)


def _run_published(search: Search, phase: Phase) -> Iterator[Step]:
    """Each step starts from the best control of the step before, whether or not that was better."""
    k = phase.k
    start, spent = _start(search, phase)
    if spent:
        yield search.step(phase.method, k)
    current = start[0][0] if start else None
    for _ in range(phase.steps - spent):
        if current is None or (phase.stop_early and search.is_solved(k)):
            return
        slopes = search.scorer.gradient(current)[0][:, search.tokens].cpu()
        controls = _candidates(search, current, slopes, phase)
        if len(controls) == 0:
            return
        controls, losses = search.evaluate(controls, phase.method, base=current, stop_early=phase.stop_early)
        current = controls[losses.argsort()[0]].clone() if len(controls) else None
        if k in search.best:
            yield search.step(phase.method, k)


class _Restarting:
    """A search that keeps its best starting points, and restarts until its budget is spent."""

    def __init__(self, search: Search, phase: Phase) -> None:
        self._search, self._phase, self._k = search, phase, phase.k
        self._buffer = _Buffer(phase.buffer)
        self._size = phase.candidates
        total = min(phase.candidates * phase.steps, search.untried(phase.k))
        self._uniform = round(phase.uniform * total)
        self._end = search.spent.get(phase.k, 0) + total  # controls of this length scored by then
        self._best = float("inf")
        self._must_restart = False
        self._stale = 0  # steps since the best control got better
        self._barren = 0  # steps since a control was scored

    def run(self) -> Iterator[Step]:
        search, phase, k = self._search, self._phase, self._k
        for start in self._starts():
            self._offer_all(start)
            if k in search.best:
                yield search.step(phase.method, k)
        while not self._is_over(self._uniform):
            entry = None if self._must_restart else self._buffer.next()
            controls, losses = self._restart() if entry is None else self._descend(entry)
            self._count(len(controls))
            self._offer_all(_sorted(controls, losses)[: _KEPT if entry is not None else phase.buffer])
            if len(controls) and k in search.best:
                yield search.step(phase.method, k)
        while not self._is_over(0):
            self._count(len(self._draw()[0]))
            if k in search.best:
                yield search.step(phase.method, k)

    def _starts(self) -> Iterator[list[tuple[Tensor, float]]]:
        """What is known at this length, then the best shorter control lengthened by promising tokens."""
        search, phase, k = self._search, self._phase, self._k
        if k in search.best:
            best = search.best[k]
            self._buffer.offer(best.control, best.loss)
            if not phase.ordered:
                return
        if self._is_over(self._uniform):
            return
        if phase.ordered:
            controls = _lengthened(search, phase)[: self._room]
            yield _sorted(*search.evaluate(controls, phase.method, stop_early=phase.stop_early))
        else:
            yield _start(search, phase)[0]

    @property
    def _left(self) -> int:
        """Controls that are still to be scored."""
        return self._end - self._search.spent.get(self._k, 0)

    @property
    def _room(self) -> int:
        """Controls of the next step, the uniform share left out."""
        return max(min(self._size, self._left - self._uniform), 1)

    def _is_over(self, reserve: int) -> bool:
        """Whether all controls but the last `reserve` are scored, or nothing more is to be done."""
        is_solved = self._phase.stop_early and self._search.is_solved(self._k)
        is_exhausted = self._barren >= _BARREN or self._search.untried(self._k) == 0
        return is_solved or is_exhausted or self._left <= reserve

    def _descend(self, entry: _Entry) -> tuple[Tensor, Tensor]:
        """Score what the gradient at a starting point proposes."""
        search, phase = self._search, self._phase
        if entry.slopes is None:
            entry.slopes = search.scorer.gradient(entry.control)[0][:, search.tokens].cpu()
        controls = _candidates(search, entry.control, entry.slopes, phase, entry.uses)[: self._room]
        entry.is_spent = len(controls) == 0
        if entry.is_spent:
            return controls, torch.empty(0)
        return search.evaluate(controls, phase.method, base=entry.control, stop_early=phase.stop_early)

    def _restart(self) -> tuple[Tensor, Tensor]:
        """Score copies of the best control with half of its tokens drawn anew, as new starting points."""
        search, k = self._search, self._k
        self._stale, self._must_restart = 0, False
        self._buffer.retire()
        if k not in search.best or k == 1:
            return self._draw()
        count = self._room
        controls = search.best[k].control.repeat(count, 1)
        places = torch.rand(count, k, generator=search.generator).argsort(1)[:, : k // 2]
        controls.scatter_(1, places, search.draw(count, k).gather(1, places))
        controls = search.fresh(controls)
        if len(controls) == 0:
            return self._draw()
        return search.evaluate(controls, self._phase.method, stop_early=self._phase.stop_early)

    def _draw(self) -> tuple[Tensor, Tensor]:
        # A single batch would be cheaper at the end, but a step per `candidates` shows how far the search is.
        count = min(self._size, max(self._left, 1))
        method, stop_early = self._phase.method, self._phase.stop_early
        return self._search.evaluate_uniform(count, self._k, method, stop_early=stop_early)

    def _count(self, scored: int) -> None:
        """Note whether the search got on; one that stands still restarts."""
        self._barren = 0 if scored else self._barren + 1
        best = self._search.best.get(self._k)
        if best is not None and best.loss < self._best - _BETTER:
            self._best, self._stale = best.loss, 0
            return
        self._stale += 1
        self._must_restart = self._stale >= self._phase.patience

    def _offer_all(self, controls: list[tuple[Tensor, float]]) -> None:
        for control, loss in controls:
            self._buffer.offer(control, loss)


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

    def retire(self) -> None:
        """Drop the starting points whose gradient was used more than once, to make place for others."""
        self._entries = [entry for entry in self._entries if entry.uses < 2 and not entry.is_spent]

    def offer(self, control: Tensor, loss: float) -> None:
        """Keep a control if it is among the best and new."""
        if any(torch.equal(control, entry.control) for entry in self._entries):
            return
        self._entries.append(_Entry(control, loss))
        self._entries.sort(key=lambda entry: entry.loss)
        del self._entries[self._size :]

    def next(self) -> _Entry | None:
        """The best entry among those that were used least often; None if all are used up."""
        left = [entry for entry in self._entries if not entry.is_spent]
        if not left:
            return None
        entry = min(left, key=lambda entry: (entry.uses, entry.loss))
        entry.uses += 1
        return entry


def _start(search: Search, phase: Phase) -> tuple[list[tuple[Tensor, float]], int]:
    """Starting controls of length k with their losses, and the steps that finding them took."""
    k = phase.k
    if k in search.best:
        return [(search.best[k].control, search.best[k].loss)], 0
    if phase.ordered:
        controls = _lengthened(search, phase)[: phase.candidates]
        found = _sorted(*search.evaluate(controls, phase.method, stop_early=phase.stop_early))
        return found, 1 if found else 0
    control = _padded(search, k, k)
    _, losses = search.evaluate(control[None], phase.method, stop_early=phase.stop_early)
    # A filler that does not survive decoding is still a point at which the gradient can be taken.
    return [(control, float(losses[0]) if len(losses) else float("inf"))], 0


def _lengthened(search: Search, phase: Phase) -> Tensor:
    """(N, K) the best shorter control with one more token, the most promising first; none was tried yet."""
    control = _padded(search, phase.k, phase.k - 1)
    return search.fresh(lengthen(control, promising_first(search, control), search.scorer.layout))


def _padded(search: Search, k: int, length: int) -> Tensor:
    """(length,) the longest control below k, with random tokens where it is shorter than `length`."""
    base = search.longest(k)
    control = base.control if base is not None else torch.empty(0, dtype=torch.long)
    missing = length - len(control)
    if missing == 0:
        return control
    filler = search.draw(1, missing)[0]
    return torch.cat([control, filler] if extends_right(search.scorer.layout) else [filler, control])


def _sorted(controls: Tensor, losses: Tensor) -> list[tuple[Tensor, float]]:
    """Controls with their losses, the best first."""
    return [(controls[row].clone(), float(losses[row])) for row in losses.argsort().tolist()]


def _candidates(search: Search, control: Tensor, slopes: Tensor, phase: Phase, uses: int = 1) -> Tensor:
    """(N, K) controls to score next, the most promising first if the phase is ordered.

    Args:
        search: The problem.
        control: (K,) the starting point.
        slopes: (K, M) gradient at it by the allowed tokens.
        phase: Sizes.
        uses: How often this gradient was used, this time included; `top_k` is multiplied by it.
    """
    top_k = min(phase.top_k * uses, slopes.shape[1])
    top = (-slopes).topk(top_k, dim=1)  # values and indices into `tokens`, (K, top_k)
    if not phase.ordered:
        return _sampled(search, control, top.indices, phase.candidates, phase.swaps)
    own = slopes.gather(1, torch.searchsorted(search.tokens, control).clamp(max=slopes.shape[1] - 1)[:, None])
    gain = top.values + own  # (K, top_k) expected fall of the loss, to first order
    # Single swaps tried from here before are at most `candidates` per use, so these hold new ones.
    ranked = gain.flatten().argsort(descending=True)[: phase.candidates * (uses + 3)]
    place, column = ranked // top_k, ranked % top_k
    best = control.repeat(len(ranked), 1)
    best[torch.arange(len(ranked)), place] = search.tokens[top.indices[place, column]]
    best = search.fresh(best)
    half = len(best) if len(control) == 1 else (phase.candidates + 1) // 2
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
    return {"candidates": candidates, "steps": steps, "swaps": 2, "buffer": 4}


METHOD = SearchMethod(
    run=run_gcg,
    label="GCG at every k",
    summary="Swaps the tokens that the gradient proposes (greedy coordinate gradient).",
    sizes=_sizes,
    reads=(
        "candidates",
        "steps",
        "top_k",
        "swaps",
        "buffer",
        "stop_early",
        "keep_best",
        "patience",
        "uniform",
        "ordered",
    ),
    needs_candidates=True,
    colour="#d1495b",
    marker="D",
)
