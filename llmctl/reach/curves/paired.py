"""The difference of two rates on the same pairs, with an interval that few discordant pairs do not break.

A pair is discordant where it counts in one of the two curves and not in the other. With few of them the
variance of the differences says little, and without any it is zero, although a larger sample would differ.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from llmctl.runs.stats import Estimate, Z, clustered_mean, student_quantile


def rate_difference(first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate:
    """The rate of the second minus that of the first on the same pairs, with a 95 % interval.

    The adjusted Wald interval of D. Bonett and R. Price, "Adjusted Wald confidence interval for a difference
    of binomial proportions based on paired data", J. Educ. Behav. Stat. 37 (2012). Where pairs share a
    cluster, it is taken at the effective number of pairs n / deff and with Student's t for clusters - 1
    degrees of freedom. The design effect deff is kept at 1 or more, so that the interval is never narrower
    than that of independent pairs. Where all differences are equal deff cannot be estimated, and each
    cluster counts as a single pair, which is the cautious extreme.

    Args:
        first: (n,) whether each pair counts in the first curve, such as "not reached".
        second: (n,) the same in the second curve.
        clusters: (n,) the cluster (the state) of each pair.

    Returns:
        The difference, within [-1, 1]; no bounds where all pairs are of one cluster and there are several.

    Raises:
        ValueError: There are no pairs, or the lengths differ.
    """
    n, count = len(first), len(set(clusters))
    if not n or len(second) != n or len(clusters) != n:
        raise ValueError(
            f"{n} first, {len(second)} second outcomes and {len(clusters)} clusters: one of each per pair, "
            "and at least one pair, is needed"
        )
    gains = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    losses = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    value = (gains - losses) / n
    if count == n:
        low, high = bonett_price(gains, losses, n, Z)
        return Estimate(value, low, high, n, n)
    if count == 1:
        return Estimate(value, None, None, n, 1)
    effect = _design_effect([float(b) - float(a) for a, b in zip(first, second, strict=True)], clusters)
    low, high = bonett_price(gains / effect, losses / effect, n / effect, student_quantile(count - 1))
    return Estimate(value, low, high, n, count)


def bonett_price(gains: float, losses: float, n: float, quantile: float) -> tuple[float, float]:
    """Bounds of (gains - losses) / n: one gain and one loss more, on two pairs more, within [-1, 1].

    Args:
        gains: Pairs that count in the second curve only; an effective number need not be whole.
        losses: Pairs that count in the first curve only.
        n: All pairs.
        quantile: Of the standard normal or of Student's distribution, 1.96 for 95 % of many pairs.
    """
    gain, loss = (gains + 1) / (n + 2), (losses + 1) / (n + 2)
    half = quantile * math.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))
    return max(gain - loss - half, -1.0), min(gain - loss + half, 1.0)


def _design_effect(differences: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many times wider dependence within clusters makes the variance of the mean difference."""
    n, count = len(differences), len(set(clusters))
    mean = sum(differences) / n
    plain = sum((value - mean) ** 2 for value in differences) / (n - 1) / n
    if plain == 0:
        return n / count
    low, high = clustered_mean(differences, clusters).bounds()
    clustered = ((high - low) / 2 / student_quantile(count - 1)) ** 2
    return max(1.0, clustered / plain)
