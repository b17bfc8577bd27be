"""Intervals for rates: Wilson, and clustered for pairs that share a state. No torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from llmctl.errors import UserError
from llmctl.runs.stats import student_quantile, wilson_bounds


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: float, *, level: float = 0.95, quantile: float | None = None) -> Interval:
    """The Wilson score interval of a rate (Wilson 1927).

    Args:
        successes: How many of n; both may be fractions (effective counts).
        n: Trials.
        level: Of confidence.
        quantile: Instead of the normal distribution's.

    Raises:
        UserError: n is not positive.
    """
    if n <= 0:
        raise UserError(f"a rate of {n} trials has no interval: give at least one pair")
    z = quantile if quantile is not None else NormalDist().inv_cdf(0.5 + level / 2)
    low, high = wilson_bounds(successes / n, n, z)
    return Interval(successes / n, low, high)


def clustered(outcomes: Sequence[bool], clusters: Sequence[Hashable], *, level: float = 0.95) -> Interval:
    """A Wilson interval whose trials count for as much as their clusters let them.

    The design effect, the cluster-robust variance over the binomial one, divides the number of trials; it
    is never taken below 1. Where all outcomes are equal it can not be estimated, and the number of
    clusters stands for the number of trials. The quantile is Student's with one degree less than clusters.

    Args:
        outcomes: Whether each pair was solved.
        clusters: The state of each pair.
        level: Of confidence.

    Raises:
        UserError: There are no outcomes.
    """
    n = len(outcomes)
    groups = len(set(clusters))
    if n == 0:
        raise UserError("a rate of 0 trials has no interval: give at least one pair")
    rate = sum(outcomes) / n
    if groups == n:
        return wilson(sum(outcomes), n, level=level)
    if groups == 1:
        return Interval(rate, 0.0, 1.0)  # one state says nothing about other states
    binomial = rate * (1 - rate) / n
    effective = float(groups)
    if binomial:
        design = _cluster_variance([float(outcome) for outcome in outcomes], clusters) / binomial
        effective = n / max(design, 1.0)
    quantile = student_quantile(groups - 1, 0.5 + level / 2)
    return wilson(rate * effective, effective, quantile=quantile)


def mean_difference(
    differences: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95
) -> Interval:
    """The mean of paired differences with a cluster-robust Student interval.

    Raises:
        UserError: Fewer than two clusters.
    """
    groups = len(set(clusters))
    if groups < 2:
        raise UserError(f"{groups} states give no interval for a difference: compare on at least two")
    mean = sum(differences) / len(differences)
    half = student_quantile(groups - 1, 0.5 + level / 2) * math.sqrt(_cluster_variance(differences, clusters))
    return Interval(mean, mean - half, mean + half)


def _cluster_variance(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Variance of the mean that is robust to dependence within clusters (Liang and Zeger 1986)."""
    mean = sum(values) / len(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    groups = len(sums)
    return groups / (groups - 1) * sum(s * s for s in sums.values()) / len(values) ** 2


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one side is constant."""
    a, b = _ranks(first), _ranks(second)
    mean_a, mean_b = sum(a) / max(len(a), 1), sum(b) / max(len(b), 1)
    cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return cross / spread if spread else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda index: values[index])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for index in order[start:stop]:
            ranks[index] = (start + stop - 1) / 2
        start = stop
    return ranks
