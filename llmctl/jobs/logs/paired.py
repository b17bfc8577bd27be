"""Two logs on the samples that both have: the paired difference, its interval, an exact test, and power.

Methods: the adjusted Wald interval of Bonett and Price (2012) for paired 0/1 scores, which keeps its coverage
with few discordant pairs; Student's interval for other scores; McNemar's exact test, or the exact sign test;
Holm's adjustment over all tasks and metrics compared; the normal approximation for power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmctl.errors import UserError
from llmctl.jobs.logs.records import EvaluationLog, Scores
from llmctl.jobs.metrics import holm, sign_test

LEVEL, POWER = 0.95, 0.80
_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
_Z_POWER = float(stats.norm.ppf(POWER))


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first on the samples of one task and metric that both logs scored."""

    task: str
    metric: str
    n: int  # samples compared
    a: float  # mean score of the first log on them
    b: float  # of the second
    value: float  # b - a
    low: float | None  # 95 % interval; None where the differences do not vary
    high: float | None
    wins: int  # samples on which the second is better
    losses: int
    p_exact: float  # two-sided
    p_holm: float  # adjusted for the number of comparisons made
    detectable: float | None  # the smallest true difference that n samples show with a power of 80 %
    needed: int | None  # samples that would show the observed difference with that power
    left_out: int  # samples that only one log has, or whose questions differ
    errors: tuple[int, int]  # samples without a score in each log

    @property
    def verdict(self) -> str:
        """Whether the difference is beyond chance after Holm's adjustment."""
        if self.p_holm < 1 - LEVEL:
            return "second better" if self.value > 0 else "first better"
        return "not decided"

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; the difference and its interval are one object."""
        content = {key: value for key, value in vars(self).items() if key not in ("value", "low", "high")}
        content["difference"] = {"value": self.value, "low": self.low, "high": self.high}
        return content | {"errors": list(self.errors), "verdict": self.verdict}


@dataclass(frozen=True)
class LogComparison:
    """All that two logs share."""

    first: EvaluationLog
    second: EvaluationLog
    differences: tuple[PairedDifference, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: the first comparison's fields at the top, and all of them under `comparisons`."""
        entries = [one.to_dict() for one in self.differences]
        logs = {
            name: {"path": log.path, "tool": log.tool, "model": log.model}
            for name, log in (("first", self.first), ("second", self.second))
        }
        return {**logs, **entries[0], "comparisons": entries, "notes": list(self.notes)}


def compare_logs(first: EvaluationLog, second: EvaluationLog, metric: str | None = None) -> LogComparison:
    """Compare two logs sample by sample.

    Tasks are matched by name; where each log has a single task, these two are.

    Args:
        first: The baseline.
        second: What is compared with it.
        metric: One metric alone, by its name with or without its filter; None compares all that are shared.

    Raises:
        UserError: The logs share no task and metric, or no sample.
    """
    notes: list[str] = []
    matched = _matched(first, second, metric, notes)
    found = []
    for a, b in matched:
        shared, left_out = _shared(a, b)
        if not shared:
            notes.append(f"{a.task}, {a.metric}: the two logs share no sample")
            continue
        if differing := _differing(a, b):
            notes.append(
                f"{a.task}, {a.metric}: {differing} samples have the same id and another question: left out"
            )
        found.append(_difference(a, b, shared, left_out))
    if not found:
        raise UserError(f"{first.path} and {second.path} cannot be compared: {'; '.join(notes)}")
    return LogComparison(first, second, tuple(_with_holm(found)), tuple(notes))


def _matched(
    first: EvaluationLog, second: EvaluationLog, metric: str | None, notes: list[str]
) -> list[tuple[Scores, Scores]]:
    """Scores of the same task and metric."""
    renamed: dict[str, str] = {}
    tasks = [sorted({one.task for one in log.scores}) for log in (first, second)]
    if len(tasks[0]) == len(tasks[1]) == 1 and tasks[0] != tasks[1]:
        renamed[tasks[0][0]] = tasks[1][0]
        notes.append(f"the tasks have two names, {tasks[0][0]} and {tasks[1][0]}: compared by sample id")
    pairs = []
    for a in first.scores:
        b = second.find(renamed.get(a.task, a.task), a.metric)
        if b is not None and (metric is None or metric in (a.metric, a.metric.split(",")[0])):
            pairs.append((a, b))
    if not pairs:
        sides = "; ".join(f"{log.path} has {_listed(log)}" for log in (first, second))
        what = "no task and metric" if metric is None else f"no metric {metric!r}"
        raise UserError(f"the two logs share {what}: {sides}")
    return pairs


def _listed(log: EvaluationLog) -> str:
    names = sorted(f"{one.task}/{one.metric}" for one in log.scores)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _shared(a: Scores, b: Scores) -> tuple[list[str], int]:
    """Samples that both scored on the same question, in the first log's order; and how many are left out."""
    shared = [name for name in a.values if name in b.values and _is_same(a, b, name)]
    return shared, len(a.values.keys() | b.values.keys()) - len(shared)


def _is_same(a: Scores, b: Scores, name: str) -> bool:
    one, two = a.questions.get(name), b.questions.get(name)
    return one is None or two is None or one == two


def _differing(a: Scores, b: Scores) -> int:
    return sum(name in b.values and not _is_same(a, b, name) for name in a.values)


def _difference(a: Scores, b: Scores, shared: Sequence[str], left_out: int) -> PairedDifference:
    x = np.array([a.values[name] for name in shared])
    y = np.array([b.values[name] for name in shared])
    d = y - x
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    low, high, spread = _interval(d, bool(np.isin([x, y], (0.0, 1.0)).all()), wins, losses)
    value = float(d.mean())
    return PairedDifference(
        task=a.task,
        metric=a.metric,
        n=len(shared),
        a=float(x.mean()),
        b=float(y.mean()),
        value=value,
        low=low,
        high=high,
        wins=wins,
        losses=losses,
        p_exact=sign_test(wins, losses),
        p_holm=1.0,
        detectable=None if spread is None else (_Z + _Z_POWER) * spread / math.sqrt(len(shared)),
        needed=_needed(value, spread),
        left_out=left_out,
        errors=(a.errors, b.errors),
    )


def _interval(
    d: NDArray[np.float64], is_binary: bool, wins: int, losses: int
) -> tuple[float | None, float | None, float | None]:
    """Bounds of the mean difference, and the standard deviation of one difference."""
    n, value = len(d), float(d.mean())
    if is_binary:
        # Bonett and Price: one win and one loss more, on two samples more.
        gain, loss = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
        spread = math.sqrt(gain + loss - (gain - loss) ** 2)
        half = _Z * spread / math.sqrt(n + 2)
        return max(gain - loss - half, -1.0), min(gain - loss + half, 1.0), spread
    if n < 2 or not (spread := float(d.std(ddof=1))):
        return None, None, None
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread / math.sqrt(n)
    return value - half, value + half, spread


def _needed(value: float, spread: float | None) -> int | None:
    if spread is None or not value:
        return None
    return math.ceil(((_Z + _Z_POWER) * spread / value) ** 2)


def _with_holm(found: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Adjust p-values for the number of comparisons (S. Holm, Scand. J. Statist. 6, 1979)."""
    adjusted = holm([one.p_exact for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]
