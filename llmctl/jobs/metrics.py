"""Estimates from numbers per problem, and paired tests: pure maths.

Problems are the independent units everywhere: samples and seeds of one problem are clustered by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.jobs.result_groups import ResultGroup
from llmctl.runs import Estimate, bootstrap_mean, wilson
from llmctl.runs.stats import Z, rate_of_clusters

Floats = NDArray[np.float64]

# Above this many units a percentile bootstrap of a mean agrees with the normal interval to three digits, but
# takes minutes instead of milliseconds.
MANY_UNITS = 20_000


@dataclass(frozen=True)
class PairedComparison:
    """Two models, or two protocols, on the same problems."""

    difference: Estimate
    """The second minus the first."""
    wins: int
    """Problems on which the second is better."""
    losses: int
    """Problems on which the first is better."""
    ties: int
    """Problems on which both are the same."""
    p_value: float
    """Two-sided p-value."""
    test: str
    """Name of the test."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "difference": self.difference.to_dict()}


def estimate(values: Floats, seed: int = 0) -> Estimate:
    """A mean over problems whose numbers lie in [0, 1].

    Args:
        values: (S, P), one row per seed.
        seed: Seed of the bootstrap.

    Numbers that are NaN (nothing was answered) are left out.

    Returns:
        The mean with Wilson's interval where all numbers are 0 or 1 (clustered by problem with several
        seeds), otherwise with a bootstrap interval over problems.
    """
    known = np.isfinite(values)
    values, known = values[:, known.any(0)], known[:, known.any(0)]
    if not np.isin(values[known], (0.0, 1.0)).all():
        return mean_estimate(mean_over_seeds(values), seed)
    if len(values) == 1:
        return wilson(int(values.sum()), values.shape[1])
    return rate_of_clusters(np.nansum(values, 0), known.sum(0).astype(float))


def mean_over_seeds(values: Floats) -> Floats:
    """(P,) means of (S, P) numbers, without those that are NaN; NaN where all are."""
    known = np.isfinite(values)
    counts = known.sum(0)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(0) / np.where(counts, counts, np.nan)


def mean_estimate(values: Floats, seed: int = 0) -> Estimate:
    """A mean over problems, (P,), by bootstrap; by the normal interval above `MANY_UNITS`."""
    if not len(values):
        return Estimate(None, None, None, 0)
    if len(values) <= MANY_UNITS:
        found = bootstrap_mean(values, seed=seed)
        # Without spread the bootstrap interval has no width, which must not be read as certainty.
        return found if found.low != found.high else Estimate(found.value, None, None, found.n)
    mean, half = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, len(values))


def compare(first: Floats, second: Floats, seed: int = 0) -> PairedComparison:
    """Second minus first on the same problems.

    The test is the exact sign test over the problems on which the two differ; where all numbers are 0 or
    1 that is McNemar's exact test (Q. McNemar, Psychometrika 12, 1947). Problems that one of the two has no
    answer to, because its samples failed, are left out.

    Args:
        first: (S, P), one row per seed.
        second: (S, P), on the same problems.
        seed: Seed of the bootstrap.
    """
    a, b = mean_over_seeds(first), mean_over_seeds(second)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    wins, losses = int((b > a).sum()), int((b < a).sum())
    is_binary = bool(np.isin(np.stack([a, b]), (0.0, 1.0)).all())
    return PairedComparison(
        mean_estimate(b - a, seed),
        wins,
        losses,
        len(a) - wins - losses,
        sign_test(wins, losses),
        "McNemar's exact test" if is_binary else "sign test over problems",
    )


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact sign test; 1 where nothing differs."""
    n = wins + losses
    if n == 0:
        return 1.0
    k = np.arange(min(wins, losses) + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = log_factorial[n] - log_factorial[k] - log_factorial[n - k] - n * math.log(2)
    top = logs.max()
    return min(1.0, 2 * float(np.exp(top) * np.exp(logs - top).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order (S. Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def stack(groups: Sequence[ResultGroup], name: str) -> Floats:
    """Numbers per problem of several seeds, (S, P)."""
    return np.stack([group.values[name] for group in groups])
