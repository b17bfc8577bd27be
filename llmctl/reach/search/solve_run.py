"""One search: the phases of a schedule, the check of every witness alone, and the verdict that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from llmctl.reach.problem import Layout, Problem
from llmctl.reach.result import Result, Step, Verdict
from llmctl.reach.scoring.scorer import NotFiniteError, context_of, vocabulary_of
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.config import Schedule
from llmctl.reach.search.methods.registry import METHODS
from llmctl.reach.search.methods.scan import SCAN, run_scan
from llmctl.reach.search.prepare import Plan, longest, start_search
from llmctl.reach.search.state import Best, Search
from llmctl.reach.vocabulary import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SolveRun:
    """The search for one problem under a schedule, from the state alone to the result."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        problem: Problem,
        schedule: Plan | None,
        max_k: int | None,
        search: Search | None = None,
    ) -> None:
        self.max_k = longest(schedule, max_k)
        self.plan = schedule
        self.schedule = schedule if isinstance(schedule, Schedule) else None  # None: not planned yet
        self.problem = problem
        self.tokenizer = tokenizer
        self.search = search or start_search(model, tokenizer, problem, self.max_k)
        self.layout = self.search.scorer.layout
        self.base_rank, self.base_loss = -1, float("nan")
        self.path: list[Step] = []
        self.planned: dict[int, int] = {}
        self._known: torch.Tensor | None = None

    def events(self) -> Iterator[Step | Result]:
        """Run the search; yields its steps, then the result."""
        error = ""
        try:
            for step in self._steps():
                self.path.append(step)
                yield step
            yield self.conclude()
            return
        except NotFiniteError as raised:
            error = str(raised)
        yield self.conclude(error)

    def result(self) -> Result:
        """Run the search to its end."""
        *_, result = self.events()
        if not isinstance(result, Result):
            raise RuntimeError("the search ended without a result")
        return result

    def _steps(self) -> Iterator[Step]:
        search = self.search
        yield self._base()
        if search.is_solved(0):
            return
        plan = self.plan or schedules.default(self.max_k)
        planned = plan if isinstance(plan, Schedule) else plan(self.base_loss)
        self.schedule = planned
        search.generator.manual_seed(planned.seed)
        self.planned = planned_by_k(search, planned, self.max_k)
        yield from self._take_over()
        for phase in planned.phases:
            if phase.k == 1 and search.has_exhausted_tokens():
                continue
            if phase.k <= self.max_k and not any(search.is_solved(k) for k in range(1, phase.k + 1)):
                yield from METHODS[phase.method].run(search, phase)
        if planned.certify and self.max_k == 1 and not search.is_solved(1):
            yield from run_scan(search)
        if planned.shorten:
            yield from self._shorten()

    def know(self, control: torch.Tensor) -> None:
        """Start from the best control of one token (1,), found by a scan that tried all of them."""
        self._known = control

    def _take_over(self) -> Iterator[Step]:
        search = self.search
        if self._known is None:
            return
        if int(self._known[0]) >= 0:  # -1: no control of one token survives decoding and encoding
            search.evaluate(self._known[None], SCAN)
            yield search.step(SCAN, 1)
        search.mark_exhausted()

    def _base(self) -> Step:
        self.base_rank, scores = self.search.scorer.base()
        self.base_loss = float(scores.loss[0])
        is_near = float(scores.margin[0]) >= -self.search.tie
        is_hit = is_near and self.search.scorer.emits(self.layout.prompt(()))
        margin = float(scores.margin[0])
        self.search.best[0] = Best(torch.empty(0, dtype=torch.long), self.base_loss, is_hit, "base", margin)
        return self.search.step("base", 0)

    def _shorten(self) -> Iterator[Step]:
        """Drop tokens one by one as long as the target is still emitted."""
        search = self.search
        k = self._solved()
        while k is not None and k > 1:
            control, method = search.best[k].control, search.best[k].method
            kept = ~torch.eye(k, dtype=torch.bool)  # row i leaves out token i
            search.evaluate(control.expand(k, k)[kept].view(k, k - 1), method, is_planned=False)
            if not search.is_solved(k - 1):
                return
            k -= 1
            yield search.step(method, k)

    def _solved(self) -> int | None:
        return min((k for k in self.search.best if self.search.is_solved(k)), default=None)

    def conclude(self, error: str = "", *, is_checked: bool = True) -> Result:
        """The result by what is known now; call it when `events` is not run to its end.

        Args:
            error: Why the search stopped before its end; empty if it did not.
            is_checked: Run the model on the witness as text; without this `roundtrips` is False.
        """
        search = self.search
        k = self._solved()
        best = search.best[k] if k is not None else _closest(search)
        control = tuple(best.control.tolist()) if best is not None else ()
        certified = _certified(search, k)
        verdict: Verdict = "reached" if k is not None else "unknown"
        if k is None and self.max_k == 1 and certified == 1 and not error:
            verdict = "unreachable"
        prompt = self.layout.prompt(control)
        roundtrips = is_checked and k is not None and _holds_as_text(search, prompt, self.tokenizer)
        return Result(
            verdict=verdict,
            k=k,
            control_ids=control,
            control_text=decode(control, self.tokenizer),
            prompt_text=decode(prompt, self.tokenizer),
            method=best.method if best is not None else "",
            base_rank=self.base_rank,
            base_loss=self.base_loss,
            loss=best.loss if best is not None else float("nan"),
            **dataclasses.asdict(search.meter),
            margin=best.margin if best is not None else float("nan"),
            planned=dict(self.planned),
            spent=dict(sorted(search.spent.items())),
            uniform_draws=dict(sorted(search.uniform.items())),
            density_bound=_density_bound(search, certified, k),
            roundtrips=roundtrips,
            certified_k=certified,
            state_ids=self.layout.state_ids,
            target_ids=self.layout.target_ids,
            state_text=decode(self.layout.state_ids, self.tokenizer),
            target_text=decode(self.layout.target_ids, self.tokenizer),
            position=self.layout.position,
            schedule=self.schedule.name if self.schedule is not None else "default",
            seed=self.schedule.seed if self.schedule is not None else 0,
            prompt_ids=tuple(prompt),
            error=error,
            id=self.problem.id,
            path=tuple(self.path),
        )


def planned_by_k(search: Search, schedule: Schedule, max_k: int) -> dict[int, int]:
    """Controls that the phases of a schedule score if no witness is found, by length."""
    planned: dict[int, int] = {}
    for phase in schedule.phases:
        if phase.k <= max_k:
            count = METHODS[phase.method].planned(search, phase)
            planned[phase.k] = min(planned.get(phase.k, 0) + count, len(search.tokens) ** phase.k)
    if schedule.certify and max_k == 1:
        planned[1] = len(search.tokens)
    return dict(sorted(planned.items()))


def _density_bound(search: Search, certified: int | None, solved: int | None) -> dict[int, float]:
    """By length without a witness: the share of controls that reach the target is at most this, at 95 %.

    If a share p of the controls were hits, N uniform draws would all miss with probability (1 - p)^N, which
    is below 5 % for p above 3 / N. A length that was tried in full holds no hit, and has no bound here.
    """
    return {
        k: min(3 / count, 1.0)
        for k, count in sorted(search.uniform.items())
        if count and k > (certified or 0) and (solved is None or k < solved) and search.untried(k)
    }


def _closest(search: Search) -> Best | None:
    return min(search.best.values(), key=lambda best: best.loss, default=None)


def _certified(search: Search, solved: int | None) -> int | None:
    """The k up to which every allowed control was tried in vain: 1, 0, or None where the state suffices."""
    if 0 not in search.best or solved == 0:
        return None
    return 1 if search.has_exhausted_tokens() and not search.is_solved(1) else 0


def _holds_as_text(search: Search, prompt: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the prompt still emits the target after it was written out as text and read again."""
    again = tokenizer.encode(decode(prompt, tokenizer), add_special_tokens=False)
    if again == prompt:
        return True
    layout: Layout = search.scorer.layout
    fits = len(again) > 0 and max(again) < vocabulary_of(search.scorer.model)
    length = context_of(search.scorer.model)
    fits = fits and (length is None or len(again) + len(layout.target_ids) <= length)
    return fits and search.scorer.emits(again)
