"""The figures of an evaluation, from its records: pure maths.

m5@t1 and m1@t5 cost the same number of samples, and so do pass@5 and p1@t5; the gain at equal compute
is the difference within such a pair. m1@t5 minus m1@t1 mixes in what plain majority voting gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmctl.runs import Estimate, bootstrap_mean, paired_bootstrap, wilson

Record = Mapping[str, Any]


def vote(attempts: Sequence[Record]) -> float:
    """The chance that a majority vote is right, ties broken at random.

    Unreadable answers do not vote; with no vote at all the result is 0.
    """
    counts: dict[str, int] = {}
    right: dict[str, bool] = {}
    for attempt in attempts:
        if (answer := attempt.get("answer")) is not None:
            counts[answer] = counts.get(answer, 0) + 1
            right[answer] = right.get(answer, False) or attempt["is_correct"]
    if not counts:
        return 0.0
    most = max(counts.values())
    top = [answer for answer, count in counts.items() if count == most]
    return sum(right[answer] for answer in top) / len(top)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), eq. 1."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def scores(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Every figure's value for every problem, (n,) each, so that figures can be paired.

    `m1_t1` is the mean over the parallel samples, which estimates the same quantity as a single sample
    with less noise.
    """
    rows: dict[str, list[float]] = {}
    for record in records:
        parallel, turns = record["parallel"], record["turns"]
        correct = sum(a["is_correct"] for a in parallel)
        row = {"m1_t1": correct / len(parallel), "m5_t1": vote(parallel), "m1_t5": vote(turns)}
        row["p1_t5"] = float(any(a["is_correct"] for a in turns))
        row |= {f"pass_{k}": pass_at_k(len(parallel), correct, k) for k in range(1, len(parallel) + 1)}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in rows.items()}


def summarize(records: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """All figures of an evaluation, each an `Estimate` over problems.

    Returns:
        `m1_t1`, `m5_t1`, `m1_t5`, `p1_t5`, `pass_k`; the gains at equal compute `compute_matched_gain`
        (m1@tR - mP@t1) and `oracle_matched_gain` (p1@tR - pass@P), and `gain_over_turns`
        (m1@tR - m1@t1), by paired bootstrap; `turns`, a list of what each turn did; `errors`, attempts
        that the engine failed on and that count as wrong.
    """
    found = scores(records)
    figures: dict[str, Any] = {}
    for name, values in found.items():
        figures[name] = _estimate(values, seed)
    for name, a, b in (*_matched(found), ("gain_over_turns", "m1_t5", "m1_t1")):
        figures[name] = paired_bootstrap(found[a], found[b], seed)
    figures["turns"] = flows(records)
    figures["errors"] = sum(_errors(record) for record in records)
    figures["distinct_answers"] = _estimate(np.array([_distinct(r["parallel"]) for r in records]), seed)
    return figures


def _matched(found: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """The differences within a pair of figures that cost the same number of samples."""
    widest = max((name for name in found if name.startswith("pass_")), key=lambda name: int(name[5:]))
    return ("compute_matched_gain", "m1_t5", "m5_t1"), ("oracle_matched_gain", "p1_t5", widest)


def _estimate(values: np.ndarray, seed: int) -> Estimate:
    """Wilson where every value is 0 or 1, else the bootstrap over problems."""
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    return bootstrap_mean(values, seed=seed)


def _errors(record: Record) -> int:
    """Attempts that the engine failed on; the first turn is one of the parallel samples."""
    return sum(a.get("error") is not None for a in [*record["parallel"], *record["turns"][1:]])


def _distinct(attempts: Sequence[Record]) -> float:
    return float(len({a.get("answer") for a in attempts}))


def flows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Turn by turn: accuracy of that turn alone, and what became of the turn before.

    Returns:
        For each turn: `turn`, `accuracy`, `repeats`, `errors`, and from the second turn on
        `wrong_to_right`, `right_to_wrong`, `right_to_right`, `wrong_to_wrong` (counts of problems).
    """
    table = []
    for turn in range(max(len(r["turns"]) for r in records)):
        played = [r["turns"] for r in records if len(r["turns"]) > turn]
        now = [bool(turns[turn]["is_correct"]) for turns in played]
        row: dict[str, Any] = {
            "turn": turn + 1,
            "accuracy": wilson(sum(now), len(now)),
            "repeats": sum(bool(turns[turn].get("is_repeat")) for turns in played),
            "errors": sum(turns[turn].get("error") is not None for turns in played),
        }
        if turn:
            was = [bool(turns[turn - 1]["is_correct"]) for turns in played]
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


def paired_gains(before: Sequence[Record], after: Sequence[Record], seed: int = 0) -> dict[str, Estimate]:
    """After minus before on the same problems, figure by figure, by paired bootstrap.

    Raises:
        ValueError: The records are not of the same problems in the same order.
    """
    if [r["problem"] for r in before] != [r["problem"] for r in after]:
        raise ValueError("the two evaluations are not of the same problems")
    old, new = scores(before), scores(after)
    gains = {name: paired_bootstrap(new[name], old[name], seed) for name in new if name in old}
    for name, a, b in _matched(new):
        gains[name] = paired_bootstrap(new[a] - new[b], old[a] - old[b], seed)
    return gains
