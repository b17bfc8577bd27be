"""Solve several problems at once: their searches advance together and share forward passes.

Every search is the code of `solve`, in a thread of its own that is used as a coroutine: it runs only while
the caller waits for its next request to the model, so one thing happens at a time, in the problems'
order, and results do not depend on timing. (Generators would have to be threaded through every method of
search; greenlets would be one more dependency.) The model runs in the caller's thread alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.reach.problem import Problem
from llmctl.reach.result import Result
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, LoneRequest, Request, ScoreRequest
from llmctl.reach.scoring.merged import Merger
from llmctl.reach.scoring.scorer import NotFiniteError
from llmctl.reach.search.prepare import Plan, check_problem, longest, start_search
from llmctl.reach.search.solve_run import SolveRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOGETHER = 16
Ask = Callable[[Request], Any]


def solve_many(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    schedule: Plan | None = None,
    max_k: int | None = None,
    *,
    together: int = TOGETHER,
) -> list[Result]:
    """`solve` for every problem, with the requests of several searches in one forward pass.

    Results are those of `solve`, up to near ties in floating point; figures of cost are the same. It pays
    on a GPU, which the few candidates of one search leave idle.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: The tokenizer of that model.
        problems: The problems to solve.
        schedule: As in `solve`, of every problem.
        max_k: As in `solve`.
        together: Searches at once; where one ends, the next problem takes its place.

    Returns:
        A result for each problem, in order.

    Raises:
        UserError: As `solve`; a problem is named by its id or its number.
    """
    found: dict[int, Result] = {}
    for number, result in solve_as_completed(model, tokenizer, problems, schedule, max_k, together=together):
        found[number] = result
    return [found[number] for number in range(len(problems))]


def solve_as_completed(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    schedule: Plan | None = None,
    max_k: int | None = None,
    *,
    together: int = TOGETHER,
) -> Iterator[tuple[int, Result]]:
    """As `solve_many`, with each result as soon as it is known.

    Closing the iterator ends the searches that are under way.

    Yields:
        The problem's number and its result.

    Raises:
        UserError: At the call for what shows without a search (see `solve_many`), else when its turn comes.
    """
    if together < 1:
        raise UserError(f"together is {together}, but at least 1 search is needed: give 1 or more")
    deepest = longest(schedule, max_k)
    for number, problem in enumerate(problems):
        _named(number, problem, partial(check_problem, model, tokenizer, problem, deepest))

    def begin(number: int) -> _Strand:
        problem = problems[number]

        def prepare(ask: Ask) -> SolveRun:
            search = start_search(model, tokenizer, problem, deepest)
            search.scorer = AskingScorer(model, search.scorer.layout, ask)
            return SolveRun(model, tokenizer, problem, schedule, max_k, search)

        return _named(number, problem, lambda: _Strand(prepare))

    return _advance(Merger(model), begin, len(problems), together)


def _advance(
    merger: Merger, begin: Callable[[int], _Strand], count: int, together: int
) -> Iterator[tuple[int, Result]]:
    """SolveRun searches until all have ended."""
    live: dict[int, _Strand] = {}  # by number, ascending
    asked: dict[int, ScoreRequest | GradientRequest] = {}
    replies: dict[int, Any] = {}
    begun = 0
    try:
        while begun < count or live:
            while begun < count and len(live) < together:
                live[begun], replies[begun] = begin(begun), None
                begun += 1
            for number in sorted(replies):
                outcome = _to_next_request(live[number], replies[number])
                if isinstance(outcome, Result):
                    del live[number]
                    yield number, outcome
                else:
                    asked[number] = outcome
            replies = _answered(merger, asked) if asked else {}
            for number in replies:
                del asked[number]
    finally:
        for strand in live.values():
            strand.cancel()


def _answered(merger: Merger, asked: dict[int, ScoreRequest | GradientRequest]) -> dict[int, Any]:
    """Gradients first: the searches that have one catch up with those that wait for scores."""
    gradients = [number for number in sorted(asked) if isinstance(asked[number], GradientRequest)]
    numbers = gradients or sorted(asked)
    return dict(zip(numbers, merger.answer([asked[number] for number in numbers]), strict=True))


def _to_next_request(strand: _Strand, reply: Any) -> ScoreRequest | GradientRequest | Result:
    """Let a search go on to its result or to a request that can be merged; what must run alone runs now."""
    outcome = strand.resume(reply)
    while isinstance(outcome, LoneRequest):
        try:
            answer: Any = outcome.run()
        except NotFiniteError as error:
            answer = error
        outcome = strand.resume(answer)
    return outcome


def _named(number: int, problem: Problem, work: Callable[[], Any]) -> Any:
    """Say of a user's mistake which problem has it."""
    try:
        return work()
    except UserError as error:
        raise UserError(f"problem {problem.id or number}: {error}") from error


class _Cancelled(BaseException):
    """Unwinds a search that nobody waits for any more; no handler of errors may catch it."""


class _Strand:
    """One search in a thread of its own, which runs only between `resume` and the next request."""

    def __init__(self, prepare: Callable[[Ask], SolveRun]) -> None:
        self._replies: SimpleQueue[Any] = SimpleQueue()
        self._outcomes: SimpleQueue[Request | Result | BaseException] = SimpleQueue()
        self._run = prepare(self._ask)
        # A daemon, so that a second interrupt cannot leave the process hanging.
        self._thread = threading.Thread(target=self._work, name="llmctl-reach", daemon=True)
        self._thread.start()

    def resume(self, reply: Any) -> Request | Result:
        """Hand in the answer to the last request (an error is raised there); wait for the next one.

        Returns:
            The next request, or the result.
        """
        self._replies.put(reply)
        outcome = self._outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self) -> None:
        """End the search at its next request, and wait for that."""
        self._replies.put(_Cancelled())
        self._thread.join()

    def _ask(self, request: Request) -> Any:
        self._outcomes.put(request)
        return self._receive()

    def _receive(self) -> Any:
        reply = self._replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _work(self) -> None:
        try:
            self._receive()
            self._outcomes.put(self._run.result())
        except _Cancelled:
            return
        except BaseException as error:  # goes on in the caller's thread
            self._outcomes.put(error)
