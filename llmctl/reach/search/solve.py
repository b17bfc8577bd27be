"""Solve problems: find the shortest control that makes a model emit a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from llmctl.reach.problem import Problem
from llmctl.reach.result import Result, Step
from llmctl.reach.scoring.scan import ScanResult, StateScan
from llmctl.reach.scoring.scorer import Meter
from llmctl.reach.search.prepare import Plan, longest, start_search
from llmctl.reach.search.solve_run import SolveRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def solve(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    schedule: Plan | None = None,
    max_k: int | None = None,
) -> Result:
    """Find the shortest control that makes the model emit the target.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: The tokenizer of that model.
        problem: State, target, position, and what a control may hold.
        schedule: The phases to run, or a function that plans them from the base loss in nats; None is
            llmctl's own plan.
        max_k: The longest control; None is 4, or the longest of the schedule.

    Returns:
        The result. A witness counts as reached only after greedy decoding of its prompt alone emitted the
        target.

    Raises:
        UserError: The problem does not fit the model, or max_k is below 1.
    """
    return SolveRun(model, tokenizer, problem, schedule, max_k).result()


def solve_steps(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    schedule: Plan | None = None,
    max_k: int | None = None,
) -> Iterator[Step | Result]:
    """As `solve`, but an iterator over the steps, with the result as its last item.

    Raises:
        UserError: As `solve`, at the call and not at the first item.
    """
    return SolveRun(model, tokenizer, problem, schedule, max_k).events()


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
        tokenizer: The tokenizer of that model.
        problem: State, position and what a control may hold; its target is ignored.
        targets: Token ids.
        schedule: As in `solve`; its phases at k = 1 are not run.
        max_k: As in `solve`.
        scan: The finished scan of this state for these targets; None scans now.
        start: Index of the first target to solve; those before it are skipped.

    Yields:
        One result per target from `start` on, in order.

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
        run = SolveRun(model, tokenizer, asked, schedule, max_k, search)
        run.know(torch.tensor(control))
        yield run.result()
