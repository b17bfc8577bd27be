"""Solve one problem: run the phases of a schedule, check every witness alone, say no more than was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from llmctl.errors import UserError
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.result import Result, Step, Verdict
from llmctl.reach.scoring.scan import ScanResult, StateScan
from llmctl.reach.scoring.scorer import Meter, NotFiniteError, Scorer, check_model, context_of, vocabulary_of
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.config import Phase, Schedule
from llmctl.reach.search.methods.beam import run_beam
from llmctl.reach.search.methods.gcg import run_gcg
from llmctl.reach.search.methods.greedy import run_greedy
from llmctl.reach.search.methods.random import run_random
from llmctl.reach.search.state import Best, Search
from llmctl.reach.vocabulary import Pool, decode, survive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RUN = {"scan": run_greedy, "greedy": run_greedy, "gcg": run_gcg, "beam": run_beam, "random": run_random}
DEFAULT_MAX_K = 4
Plan = Schedule | Callable[[float], Schedule]  # what to run, or how to plan it from the base loss


@overload
def solve(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    schedule: Plan | None = ...,
    max_k: int | None = ...,
    events: Literal[False] = ...,
) -> Result: ...
@overload
def solve(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    schedule: Plan | None = ...,
    max_k: int | None = ...,
    *,
    events: Literal[True],
) -> Iterator[Step | Result]: ...
def solve(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    schedule: Plan | None = None,
    max_k: int | None = None,
    events: bool = False,
) -> Result | Iterator[Step | Result]:
    """Find the shortest control that makes the model emit the target.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: Of that model.
        problem: State, target, position, and what a control may hold.
        schedule: The phases to run, or a function that plans them from the base loss in nats; None is
            llmctl's own plan.
        max_k: The longest control; None is 4, or what the schedule holds.
        events: Return an iterator over the steps, with the result as its last item.

    Returns:
        The result, or the iterator. A witness counts as reached only after greedy decoding of its prompt
        alone emitted the target.

    Raises:
        UserError: The problem does not fit the model, or max_k is below 1. Raised at the call, also with
            `events`.
    """
    run = Run(model, tokenizer, problem, schedule, max_k)
    if events:
        return run.events()
    *_, result = run.events()
    if not isinstance(result, Result):
        raise RuntimeError("the search ended without a result")
    return result


def solve_state(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    targets: Sequence[int],
    schedule: Plan | None = None,
    max_k: int | None = None,
    *,
    scan: ScanResult | None = None,
    start: int = 0,
) -> Iterator[Result]:
    """Solve several one-token targets of one state; they share one exhaustive scan at k = 1.

    A target that one token reaches is answered by the scan, one that none reaches goes on from its best
    single token, with k = 1 certified. The scan's forwards are counted in the first result.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: Of that model.
        problem: State, position and what a control may hold; its target is not read.
        targets: Token ids.
        schedule: As in `solve`; its phases at k = 1 are not run.
        max_k: As in `solve`.
        scan: The finished scan of this state for these targets; None scans now.
        start: Begin with this target, where the ones before it have been answered.

    Yields:
        A result for each target from `start` on, in order.

    Raises:
        UserError: As `solve`.
    """
    deepest = longest(schedule, max_k)
    if scan is None:
        fresh = StateScan(model, tokenizer, problem, targets)
        scan = fresh.finish(fresh.chunks())
    witnesses = scan.reachable()
    for column in range(start, len(targets)):
        meter = Meter(scan.forwards, scan.forward_tokens) if column == 0 else Meter()
        asked = dataclasses.replace(problem, target=[targets[column]])
        search = start_search(model, tokenizer, asked, deepest, meter=meter)
        control = witnesses.get(targets[column]) or (scan.best_control[column],)
        run = Run(model, tokenizer, asked, schedule, max_k, search)
        run.know(torch.tensor(control))
        *_, result = run.events()
        if isinstance(result, Result):
            yield result


class Run:
    """One call of `solve`: give it a search, or it starts its own."""

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
        self._known: torch.Tensor | None = None

    def events(self) -> Iterator[Step | Result]:
        """The steps, then the result."""
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

    def _steps(self) -> Iterator[Step]:
        search = self.search
        yield self._base()
        if search.is_solved(0):
            return
        plan = self.plan or partial(schedules.default, self.max_k)
        planned = plan if isinstance(plan, Schedule) else plan(self.base_loss)
        self.schedule = planned
        search.generator.manual_seed(planned.seed)
        yield from self._take_over()
        for phase in planned.phases:
            if phase.k == 1 and search.has_exhausted_tokens():
                continue
            if phase.k <= self.max_k and not any(search.is_solved(k) for k in range(1, phase.k + 1)):
                yield from _RUN[phase.method](search, phase)
        if planned.certify and self.max_k == 1 and not search.is_solved(1):
            yield from run_greedy(search, Phase("scan", 1))
        if planned.shorten:
            yield from self._shorten()

    def know(self, control: torch.Tensor) -> None:
        """Take over the best control of one token (1,) from a scan that tried them all."""
        self._known = control

    def _take_over(self) -> Iterator[Step]:
        search = self.search
        if self._known is None:
            return
        if int(self._known[0]) >= 0:  # -1: no control of one token survives decoding and encoding
            search.evaluate(self._known[None], "scan")
            yield search.step("scan", 1)
        search.mark_exhausted()

    def _base(self) -> Step:
        self.base_rank, scores = self.search.scorer.base()
        self.base_loss = float(scores.loss[0])
        is_near = float(scores.margin[0]) >= -self.search.tie
        is_hit = is_near and self.search.scorer.emits(self.layout.prompt(()))
        self.search.best[0] = Best(torch.empty(0, dtype=torch.long), self.base_loss, is_hit, "base")
        return self.search.step("base", 0)

    def _shorten(self) -> Iterator[Step]:
        """Drop one token after the other for as long as the target is still emitted."""
        search = self.search
        k = self._solved()
        while k is not None and k > 1:
            control, method = search.best[k].control, search.best[k].method
            kept = ~torch.eye(k, dtype=torch.bool)  # row i leaves out token i
            search.evaluate(control.expand(k, k)[kept].view(k, k - 1), method)
            if not search.is_solved(k - 1):
                return
            k -= 1
            yield search.step(method, k)

    def _solved(self) -> int | None:
        return min((k for k in self.search.best if self.search.is_solved(k)), default=None)

    def conclude(self, error: str = "", *, is_checked: bool = True) -> Result:
        """What is known now; call it where the events are not taken to their end.

        Args:
            error: Why the search could not go on.
            is_checked: Ask the model whether the witness holds as text; without it `roundtrips` is False.
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


def start_search(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    max_k: int,
    *,
    meter: Meter | None = None,
) -> Search:
    """Check a problem against a model and make ready to search.

    Raises:
        UserError: The model is no decoder, the problem does not fit it, or the target is empty.
    """
    layout = check_problem(model, tokenizer, problem, max_k)
    pool = Pool(problem, layout, tokenizer, vocabulary_of(model))
    if problem.must_roundtrip and not survive([layout.prompt(())], tokenizer)[0]:
        raise UserError(
            "must_roundtrip is on, but the state itself changes when it is decoded and encoded again: "
            "give the state as text"
        )
    return Search(Scorer(model, layout, meter=meter), pool)


def check_problem(model: Any, tokenizer: PreTrainedTokenizerBase, problem: Problem, max_k: int) -> Layout:
    """Lay a problem out for a model; what a control may hold is not looked at.

    Raises:
        UserError: The model is no decoder, the problem does not fit it, or the target is empty.
    """
    check_model(model)
    if len(problem.target) == 0:
        raise UserError("the target is empty, but it needs at least one token: give a text or token ids")
    length = context_of(model)
    return lay_out(problem, tokenizer, vocabulary=vocabulary_of(model), context_length=length, max_k=max_k)


def longest(schedule: Plan | None, max_k: int | None) -> int:
    """The longest control that a call of `solve` may try.

    Raises:
        UserError: max_k is below 1.
    """
    if max_k is None:
        max_k = schedule.max_k if isinstance(schedule, Schedule) else DEFAULT_MAX_K
    if max_k < 1:
        raise UserError(f"k is {max_k}, but a control needs at least 1 token: give k >= 1")
    return max_k


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
