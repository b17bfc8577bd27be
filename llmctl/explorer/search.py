"""The search as a job: one target after the other, every step sent as it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.explorer.events import SearchProgressed, SearchStepped, TargetBegan, TargetEnded
from llmctl.explorer.jobs import Job
from llmctl.explorer.models import Models, Open
from llmctl.explorer.questions import ControlScorer, check_ids
from llmctl.explorer.requests import SearchRequest
from llmctl.explorer.turns import Stopped
from llmctl.reach.problem import Problem
from llmctl.reach.result import Result, Step
from llmctl.reach.search.config import Schedule

if TYPE_CHECKING:
    from llmctl.reach.search.prepare import Plan

_TELL = 0.25  # seconds between two notes of progress


def search(job: Job, models: Models, request: SearchRequest) -> None:
    """Look for a control for each target of a request.

    Events: `TargetBegan`, `SearchStepped` (with a close look at the best control so far), `SearchProgressed`,
    `TargetEnded`.

    Raises:
        UserError: The request does not fit the model.
        Stopped: The job is to end; the target that was searched gets a result of what is known.
    """
    found = models.get(request.model, request.adapter)
    for place, target in enumerate(request.targets):
        _Target(job, found, request, place, check_ids(found, target, "target")).search()


class _Spent(BaseException):
    """The budget of a target is spent. No Exception, so that no search takes it for a failure."""


class _Target:
    """The search for one target."""

    def __init__(
        self, job: Job, found: Open, request: SearchRequest, place: int, target: tuple[int, ...]
    ) -> None:
        from llmctl.reach.search.solve_run import SolveRun

        self._job, self._found, self._order, self._place = job, found, request, place
        problem = Problem(
            request.state,
            target,
            position=request.position,
            controls=request.controls,
            must_roundtrip=request.must_roundtrip,
        )
        self._run = SolveRun(found.model, found.tokenizer, problem, plan_of(request), request.k)
        self._target = target
        self._shown: tuple[int, ...] | None = None
        self._best: tuple[bool, float] = (False, float("inf"))
        self._began = job.seconds
        self._told = 0.0

    def search(self) -> None:
        control_scorer = ControlScorer(self._found, self._run.layout)
        self._job.say(
            TargetBegan(
                self._place,
                target=self._found.tokens(self._target),
                base_loss=control_scorer.base_loss,
                base_rank=control_scorer.base_rank,
            )
        )
        self._job.on_pass = self._before_pass
        try:
            for event in self._run.events():
                if isinstance(event, Result):
                    self._job.on_pass = None
                    self._tell(event, "", control_scorer)
                    return
                self._show(event, control_scorer)
        except _Spent:
            self._job.on_pass = None
            self._tell(self._run.conclude(), "the budget is spent", control_scorer)
        except Stopped:
            self._tell(self._run.conclude(is_checked=False), "stopped")
            raise
        finally:
            self._job.on_pass = None

    def _show(self, step: Step, control_scorer: ControlScorer) -> None:
        """Tell a step; one that found something better comes with a close look at it."""
        standing = (step.is_hit, -step.loss)
        best = None
        if self._shown is None or standing > self._best:
            self._best, self._shown = standing, step.control_ids
            best = control_scorer.measure(step.control_ids, decide=False)
        self._job.say(
            SearchStepped(
                self._place,
                method=step.method,
                k=step.k,
                loss=_finite(step.loss),
                is_hit=step.is_hit,
                forwards=step.forwards,
                forward_tokens=step.forward_tokens,
                best=best,
            )
        )

    def _before_pass(self) -> None:
        """End where the budget is spent; else tell, now and then, how far it is.

        Raises:
            _Spent: It is.
        """
        meter = self._run.search.meter
        if meter.forwards >= self._order.budget:
            raise _Spent
        seconds = self._job.seconds - self._began
        if seconds - self._told < _TELL:
            return
        self._told = seconds
        total = min(self._order.budget, planned(self._run.schedule, self._run.max_k, self._found))
        left = max(total - meter.forwards, 0) * seconds / meter.forwards if meter.forwards > 8 else None
        self._job.say(
            SearchProgressed(
                self._place,
                forwards=meter.forwards,
                forward_tokens=meter.forward_tokens,
                of=total,
                seconds=round(seconds, 2),
                left=None if left is None else round(left, 1),
            )
        )

    def _tell(self, result: Result, note: str, control_scorer: ControlScorer | None = None) -> None:
        entry = result.to_dict(with_path=False)
        entry["control"] = self._found.tokens(result.control_ids)
        entry["target"] = self._found.tokens(result.target_ids)
        best = None if control_scorer is None else control_scorer.measure(result.control_ids)
        seconds = round(self._job.seconds - self._began, 2)
        self._job.say(TargetEnded(self._place, result=entry, note=note, best=best, seconds=seconds))


def plan_of(request: SearchRequest) -> Plan:
    """The schedule that a request asks for."""
    from llmctl.reach.curves.plan import search_plan
    from llmctl.reach.curves.recipe import CurveSearchSettings
    from llmctl.reach.search import schedule as schedules

    if request.method == "published":
        ks = [k for k in (1, 2, 3, 4, 6, 8, 10) if k <= request.k]
        return schedules.published([k for k in ks if k <= 3], [k for k in ks if k > 3], seed=request.seed)
    return search_plan(CurveSearchSettings(schedule=request.method, max_k=request.k, seed=request.seed))


def planned(schedule: Schedule | None, max_k: int, found: Open) -> int:
    """Controls that a schedule scores at most; before it is planned, a great many."""
    if schedule is None:
        return 2**31
    phases = [phase for phase in schedule.phases if phase.k <= max_k]
    return sum((phase.candidates or len(found.texts)) * phase.steps for phase in phases)


def _finite(loss: float) -> float | None:
    return loss if loss == loss and abs(loss) != float("inf") else None
