"""Metrics with 95 % confidence intervals.

Without examples, value and bounds are None; with a single unit a bootstrap has no bounds. So an
`Estimate` never holds a NaN, and its JSON is always valid.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z = 1.959963984540054  # the 97.5 % point of the standard normal distribution
RESAMPLES = 10_000
_DRAWS_AT_ONCE = 1 << 21  # 16 MB of indices, whatever the number of examples


@dataclass(frozen=True)
class Estimate:
    """A metric, its 95 % interval, and the number of examples it is computed from."""

    value: float | None  # None where n is 0
    low: float | None  # None where no interval can be given
    high: float | None
    n: int  # examples
    clusters: int | None = None  # groups of examples that were taken as the independent units

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `clusters` only where there are any."""
        plain = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return plain if self.clusters is None else {**plain, "clusters": self.clusters}

    def bounds(self) -> tuple[float, float]:
        """Low and high of an estimate that has an interval.

        Raises:
            ValueError: It has none.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"an estimate from n = {self.n} examples has no interval")
        return self.low, self.high

    def __str__(self) -> str:
        return self.format()

    def format(self, digits: int = 3) -> str:
        """In words, e.g. "0.480 [0.412, 0.549], n = 200"."""
        count = f"n = {self.n}" + (f" in {self.clusters}" if self.clusters is not None else "")
        if self.value is None:
            return f"no value, {count}"
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f} (no interval), {count}"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}], {count}"


def wilson(successes: int, n: int) -> Estimate:
    """Score interval of a rate over independent trials.

    With p = successes / n it is (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n): E. B. Wilson,
    "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), p. 209-212.

    Args:
        successes: Between 0 and n.
        n: Trials; with 0 there is neither value nor interval.

    Raises:
        ValueError: The counts do not fit.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials: 0 <= successes <= n is needed")
    if n == 0:
        return Estimate(None, None, None, 0)
    low, high = wilson_bounds(successes / n, n, Z)
    return Estimate(successes / n, low, high, int(n))


def clustered_rate(
    values_by_cluster: Mapping[Hashable, Sequence[int | bool]] | Sequence[Sequence[int | bool]],
) -> Estimate:
    """Interval of a rate where examples of one cluster (a state, a user) are alike.

    The Wilson interval with the effective number of trials n / deff, where deff is the design effect of
    the ratio estimator (L. Kish, "Survey Sampling", 1965, ch. 5-8), and the quantile of Student's t with
    clusters - 1 degrees of freedom in place of the normal one; this adaptation is among those compared by
    N. Dean and M. Pagano, "Evaluating confidence interval methods for binomial proportions in clustered
    surveys", J. Survey Stat. Methodol. 3 (2015). deff is kept at 1 or more. Where all values are equal it
    cannot be estimated, and each cluster counts as a single trial, which is the cautious extreme.

    Args:
        values_by_cluster: For each cluster its outcomes, 0 or 1; empty clusters do not count.

    Returns:
        The rate over all examples; with one cluster, value without bounds.

    Raises:
        ValueError: A value is neither 0 nor 1.
    """
    groups = values_by_cluster.values() if isinstance(values_by_cluster, Mapping) else values_by_cluster
    outcomes = [_values(group, "values") for group in groups if len(group)]
    if any(np.any((group != 0) & (group != 1)) for group in outcomes):
        raise ValueError("a rate is taken over values that are 0 or 1; use bootstrap_mean for others")
    sizes = np.array([len(group) for group in outcomes], dtype=float)
    sums = np.array([group.sum() for group in outcomes], dtype=float)
    return rate_of_clusters(sums, sizes)


def rate_of_clusters(sums: ArrayLike, sizes: ArrayLike) -> Estimate:
    """`clustered_rate` from counts, for clusters by the million.

    Args:
        sums: (U,) successes of each cluster.
        sizes: (U,) examples of each cluster, positive.
    """
    successes, trials = _values(sums, "sums"), _values(sizes, "sizes")
    n, clusters = int(trials.sum()), len(trials)
    if n == 0:
        return Estimate(None, None, None, 0, 0)
    rate = float(successes.sum() / n)
    if clusters == 1:
        return Estimate(rate, None, None, n, 1)
    if 0 < rate < 1:
        residuals = successes - rate * trials
        variance = clusters / (clusters - 1) * float((residuals**2).sum()) / n**2
        deff = max(1.0, variance / (rate * (1 - rate) / n))
        effective = n / deff
    else:
        effective = float(clusters)
    low, high = wilson_bounds(rate, effective, student_quantile(clusters - 1))
    return Estimate(rate, low, high, n, clusters)


def rate_by_state(outcomes: Sequence[bool], states: Sequence[Hashable]) -> Estimate:
    """Interval of a rate over pairs of which some share a state; it always has bounds.

    As `clustered_rate`, but pairs that share no state get the plain Wilson interval, and pairs of a single
    state get [0, 1], because one state says nothing about other states.

    Args:
        outcomes: (n,) whether each pair has the property that is counted, n at least 1.
        states: (n,) the state of each pair.

    Raises:
        ValueError: There are no outcomes, or the lengths differ.
    """
    if not outcomes or len(outcomes) != len(states):
        raise ValueError(
            f"{len(outcomes)} outcomes and {len(states)} states: one state per outcome is needed"
        )
    groups = _by_cluster(outcomes, states)
    n, count = len(outcomes), len(groups)
    if count == n:
        plain = wilson(sum(map(bool, outcomes)), n)
        return Estimate(plain.value, plain.low, plain.high, n, n)
    if count == 1:
        return Estimate(sum(map(bool, outcomes)) / n, 0.0, 1.0, n, 1)
    return rate_of_clusters([sum(group) for group in groups], [len(group) for group in groups])


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Interval of a mean that is robust to dependence within clusters, with Student's t.

    K.-Y. Liang and S. Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73
    (1986). For differences of paired outcomes, and with at least two clusters.

    Args:
        values: (n,) finite numbers.
        clusters: (n,) the cluster (a state, a user) of each value.

    Returns:
        The mean; with fewer than two clusters there are no bounds.

    Raises:
        ValueError: A value is not finite, or the lengths differ.
    """
    numbers = _values(values, "values")
    n = len(numbers)
    if len(clusters) != n:
        raise ValueError(f"{n} values but {len(clusters)} clusters: one cluster per value is needed")
    groups = _by_cluster(numbers.tolist(), clusters)
    count = len(groups)
    if n == 0:
        return Estimate(None, None, None, 0, 0)
    mean = float(numbers.mean())
    if count == 1:
        return Estimate(mean, None, None, n, 1)
    residuals = np.array([sum(group) - mean * len(group) for group in groups])
    variance = count / (count - 1) * float((residuals**2).sum()) / n**2
    half = student_quantile(count - 1) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, n, count)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where one side is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy.stats import spearmanr  # imported here, since it takes a second

    return float(spearmanr(first, second).statistic)


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> list[list[float]]:
    """The values of each cluster, in the order in which clusters first appear."""
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    return list(groups.values())


def bootstrap_mean(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Percentile bootstrap of a mean.

    B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7 (1979); for the
    interval B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13.

    Args:
        values: (n,) finite numbers.
        clusters: For each value the cluster (state, user) it belongs to; whole clusters are drawn then,
            and the mean of a resample is over all its values.
        seed: Seed for the resampling.
        resamples: Number of resamples.

    Returns:
        The mean; with a single unit (value, or cluster) there are no bounds.

    Raises:
        ValueError: A value is not finite, or the lengths differ.
    """
    numbers = _values(values, "values")
    if clusters is not None and len(clusters) != len(numbers):
        raise ValueError(f"{len(numbers)} values but {len(clusters)} clusters: one for each value is needed")
    if not len(numbers):
        return Estimate(None, None, None, 0, None if clusters is None else 0)
    if clusters is None:
        sums, sizes = numbers, np.ones_like(numbers)
    else:
        index: dict[Hashable, int] = {}
        which = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
        sums = np.bincount(which, numbers).astype(float)
        sizes = np.bincount(which).astype(float)
    mean = float(numbers.mean())
    count = None if clusters is None else len(sums)
    if len(sums) == 1:
        return Estimate(mean, None, None, len(numbers), count)
    means = _resampled_means(sums, sizes, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high), len(numbers), count)


def bootstrap_ratio(sums: ArrayLike, sizes: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Percentile bootstrap of a mean whose values come in units: all sums over all sizes.

    For example for a loss per token, where rows are the units: rows are drawn, not tokens.

    Args:
        sums: (U,) sum of the values of each unit.
        sizes: (U,) number of the values of each unit, positive.
        seed: Seed for the resampling.
        resamples: Number of resamples.

    Returns:
        The ratio; with a single unit there are no bounds. `n` counts units.

    Raises:
        ValueError: A number is not finite, or the lengths differ.
    """
    totals, counts = _values(sums, "sums"), _values(sizes, "sizes")
    if len(totals) != len(counts):
        raise ValueError(f"{len(totals)} sums but {len(counts)} sizes: one for each unit is needed")
    if not len(totals):
        return Estimate(None, None, None, 0)
    ratio = float(totals.sum() / counts.sum())
    if len(totals) == 1:
        return Estimate(ratio, None, None, 1)
    means = _resampled_means(totals, counts, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(ratio, float(low), float(high), len(totals))


def student_mean(values: ArrayLike) -> Estimate:
    """Interval of a mean over a few independent repetitions, such as seeds: mean ± t s / √n.

    With three values a bootstrap cannot give less than their range, nor more; Student's t does not pretend
    to know the spread (Student, "The probable error of a mean", Biometrika 6, 1908).

    Args:
        values: (n,) finite numbers.

    Returns:
        The mean; with one value there are no bounds.

    Raises:
        ValueError: A value is not finite.
    """
    numbers = _values(values, "values")
    n = len(numbers)
    if n == 0:
        return Estimate(None, None, None, 0)
    mean = float(numbers.mean())
    if n == 1:
        return Estimate(mean, None, None, 1)
    half = student_quantile(n - 1) * float(numbers.std(ddof=1)) / n**0.5
    return Estimate(mean, mean - half, mean + half, n)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Percentile bootstrap of the mean difference a - b, where both were measured on the same units.

    Units are drawn as pairs, so what they have in common cancels: Efron and Tibshirani (1993), ch. 8.

    Args:
        a: (n,) one number per unit; the difference is positive where `a` is larger.
        b: (n,) one number per unit, in the same order.
        seed: Seed for the resampling.
        clusters: As in `bootstrap_mean`.
        resamples: Number of resamples.

    Raises:
        ValueError: A value is not finite, or the lengths differ.
    """
    first, second = _values(a, "a"), _values(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} values and b has {len(second)}: pairs are needed")
    return bootstrap_mean(first - second, clusters, seed, resamples)


def _values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=float).reshape(-1)
    if not np.isfinite(numbers).all():
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"{name}[{place}] is {numbers[place]}: only finite numbers have a mean")
    return numbers


def wilson_bounds(rate: float, n: float, z: float) -> tuple[float, float]:
    """Bounds of the score interval; exactly 0 at rate 0 and exactly 1 at rate 1, as the formula has it."""
    centre = rate + z * z / (2 * n)
    half = z * float(np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    low = 0.0 if rate == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if rate == 1 else min(1.0, (centre + half) / scale)
    return low, high


def student_quantile(degrees: int, probability: float = 0.975) -> float:
    """Quantile of Student's t, by the expansion 26.7.5 of Abramowitz and Stegun (1964).

    Exact at 1 and 2 degrees of freedom, where there is a closed form; at 97.5 % within 0.2 % of the true
    value above.

    Args:
        degrees: Degrees of freedom, at least 1.
        probability: Above one half.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        u = 2 * probability - 1
        return u * math.sqrt(2 / (1 - u * u))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Means of `resamples` draws of len(sums) units with replacement, in bounded memory.

    Args:
        sums: (U,) sum of the values of each unit.
        sizes: (U,) number of the values of each unit.
        rng: Where the draws come from.
        resamples: Number of resamples.

    Returns:
        (resamples,) means.
    """
    units = len(sums)
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)  # (kinds, 2)
    is_repetitive = len(kinds) * 20 < units
    part = max(1, _DRAWS_AT_ONCE // (len(kinds) if is_repetitive else units))
    means = np.empty(resamples)
    for start in range(0, resamples, part):
        rows = min(part, resamples - start)
        if is_repetitive:  # equal units are exchangeable: draw how often each kind comes
            totals = rng.multinomial(units, counts / units, size=rows) @ kinds  # (rows, 2)
            means[start : start + rows] = totals[:, 0] / totals[:, 1]
        else:
            index = rng.integers(0, units, size=(rows, units))
            means[start : start + rows] = sums[index].sum(1) / sizes[index].sum(1)
    return means
