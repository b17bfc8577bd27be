"""The metrics of an evaluation, computed from its records; no model and no files.

Where P equals R, mP@t1 and m1@tR cost the same number of samples, and so do pass@P and p1@tR; the gain at
equal compute is the difference within such a pair. m1@tR minus m1@t1 also contains what a plain majority
vote gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.rise.metric_names import ONE_SAMPLE, MetricNames
from llmctl.rise.records import Evaluation, Turn
from llmctl.runs import Estimate, bootstrap_mean, paired_bootstrap, wilson


def vote(attempts: Sequence[Turn]) -> float:
    """The probability that a majority vote is right, with ties broken at random.

    Unreadable answers do not vote; without any vote the result is 0.
    """
    counts: dict[str, int] = {}
    right: dict[str, bool] = {}
    for attempt in attempts:
        if (answer := attempt.answer) is not None:
            counts[answer] = counts.get(answer, 0) + 1
            right[answer] = right.get(answer, False) or attempt.is_correct
    if not counts:
        return 0.0
    most = max(counts.values())
    top = [answer for answer, count in counts.items() if count == most]
    return sum(right[answer] for answer in top) / len(top)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), eq. 1."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


@dataclass(frozen=True)
class Scores:
    """The value of every metric for every problem, so that metrics can be paired; each array is (n,)."""

    names: MetricNames
    one_sample: np.ndarray
    """Mean over the parallel samples: the accuracy of one sample, with less noise than a single draw."""
    parallel_vote: np.ndarray
    turn_vote: np.ndarray
    any_turn: np.ndarray
    pass_at: tuple[np.ndarray, ...]
    """pass@1 to pass@P."""

    def by_name(self) -> dict[str, np.ndarray]:
        """The metrics by their names; with one turn or one sample, `m1_t1` is the mean over the samples."""
        found = {ONE_SAMPLE: self.one_sample}
        found.setdefault(self.names.parallel_vote, self.parallel_vote)
        found.setdefault(self.names.turn_vote, self.turn_vote)
        found[self.names.any_turn] = self.any_turn
        return found | {f"pass_{k}": values for k, values in enumerate(self.pass_at, 1)}

    def pairs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The differences within a pair of metrics that cost the same number of samples."""
        return {
            "compute_matched_gain": (self.turn_vote, self.parallel_vote),
            "oracle_matched_gain": (self.any_turn, self.pass_at[-1]),
        }


def scores(evaluations: Sequence[Evaluation], turns: int | None = None) -> Scores:
    """The value of every metric for every problem.

    Args:
        evaluations: At least one.
        turns: R, as the evaluation was run; None takes the length of the longest episode.
    """
    parallel = len(evaluations[0].parallel)
    correct = [sum(turn.is_correct for turn in e.parallel) for e in evaluations]
    return Scores(
        MetricNames(parallel, turns or max(len(e.turns) for e in evaluations)),
        one_sample=np.array([c / len(e.parallel) for c, e in zip(correct, evaluations, strict=True)]),
        parallel_vote=np.array([vote(e.parallel) for e in evaluations]),
        turn_vote=np.array([vote(e.turns) for e in evaluations]),
        any_turn=np.array([float(any(turn.is_correct for turn in e.turns)) for e in evaluations]),
        pass_at=tuple(np.array([pass_at_k(parallel, c, k) for c in correct]) for k in range(1, parallel + 1)),
    )


def summarize(evaluations: Sequence[Evaluation], seed: int = 0, turns: int | None = None) -> dict[str, Any]:
    """All metrics of an evaluation, each an `Estimate` over problems.

    Args:
        evaluations: One per problem, at least one.
        seed: Seed for the bootstrap.
        turns: R, as the evaluation was run; None takes the length of the longest episode.

    Returns:
        `m1_t1`, `m{P}_t1`, `m1_t{R}`, `p1_t{R}` and `pass_{k}`, with the P and R that were run; the gains
        at equal compute `compute_matched_gain` (m1@tR - mP@t1) and `oracle_matched_gain`
        (p1@tR - pass@P), and `gain_over_turns` (m1@tR - m1@t1), by paired bootstrap; `turns`, a list with
        the accuracy and the changes of each turn; `errors`, the number of responses that the engine failed
        on, which count as wrong; `distinct_answers`, the mean number of different answers among the samples.
    """
    found = scores(evaluations, turns)
    metrics: dict[str, Any] = {name: _estimate(values, seed) for name, values in found.by_name().items()}
    pairs = found.pairs() | {"gain_over_turns": (found.turn_vote, found.one_sample)}
    metrics |= {name: paired_bootstrap(a, b, seed) for name, (a, b) in pairs.items()}
    metrics["turns"] = flows(evaluations)
    metrics["errors"] = sum(map(_errors, evaluations))
    metrics["distinct_answers"] = _estimate(np.array([_distinct(e.parallel) for e in evaluations]), seed)
    return metrics


def _estimate(values: np.ndarray, seed: int) -> Estimate:
    """Wilson's interval where every value is 0 or 1, else the bootstrap over problems."""
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    return bootstrap_mean(values, seed=seed)


def _errors(evaluation: Evaluation) -> int:
    """Responses that the engine failed on; the first turn is one of the parallel samples."""
    return sum(turn.error is not None for turn in [*evaluation.parallel, *evaluation.turns[1:]])


def _distinct(attempts: Sequence[Turn]) -> float:
    return float(len({attempt.answer for attempt in attempts}))


def flows(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Per turn: the accuracy of that turn alone, and how the answers changed from the turn before.

    Returns:
        For each turn: `turn`, `accuracy`, `repeats`, `errors`, and from the second turn on
        `wrong_to_right`, `right_to_wrong`, `right_to_right`, `wrong_to_wrong` (numbers of problems).
    """
    table = []
    for turn in range(max(len(e.turns) for e in evaluations)):
        played = [e.turns for e in evaluations if len(e.turns) > turn]
        now = [turns[turn].is_correct for turns in played]
        row: dict[str, Any] = {
            "turn": turn + 1,
            "accuracy": wilson(sum(now), len(now)),
            "repeats": sum(turns[turn].is_repeat for turns in played),
            "errors": sum(turns[turn].error is not None for turns in played),
        }
        if turn:
            was = [turns[turn - 1].is_correct for turns in played]
            for name, (a, b) in _FLOWS.items():
                row[name] = sum(w == a and n == b for w, n in zip(was, now, strict=True))
        table.append(row)
    return table


_FLOWS = {
    "wrong_to_right": (False, True),
    "right_to_wrong": (True, False),
    "right_to_right": (True, True),
    "wrong_to_wrong": (False, False),
}


def paired_gains(
    before: Sequence[Evaluation], after: Sequence[Evaluation], seed: int = 0, turns: int | None = None
) -> dict[str, Estimate]:
    """After minus before on the same problems, metric by metric, by paired bootstrap.

    Args:
        before: One per problem.
        after: One per problem, of the same problems in the same order.
        seed: Seed for the bootstrap.
        turns: R, as both evaluations were run; None takes the length of the longest episode.

    Raises:
        ValueError: The evaluations are not of the same problems in the same order.
    """
    if [e.problem for e in before] != [e.problem for e in after]:
        raise ValueError("the two evaluations are not of the same problems")
    turns = turns or max(len(e.turns) for e in [*before, *after])
    old, new = scores(before, turns), scores(after, turns)
    names = old.by_name()
    gains = {
        name: paired_bootstrap(values, names[name], seed)
        for name, values in new.by_name().items()
        if name in names
    }
    was = old.pairs()
    for name, (a, b) in new.pairs().items():
        gains[name] = paired_bootstrap(a - b, was[name][0] - was[name][1], seed)
    return gains
