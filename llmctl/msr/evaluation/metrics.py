"""AUC, HR, MRR and NDCG with the expected rank under ties, their intervals, and their value by chance.

Items with the same score as the true item could be ranked before or after it. The rank of the true item is
taken as uniform over the tied ranks, and each metric is its exact mean over them: the order in which a list
is written has no influence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmctl.runs import Estimate, bootstrap_mean, paired_bootstrap

CUTOFFS = (3, 5, 10)
PerUser = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class RankCounts:
    """The rank of the true item of each of U users among the other items, ties counted apart."""

    greater: NDArray[np.int64]  # (U,) other items with a higher score
    equal: NDArray[np.int64]  # (U,) other items with the same score
    others: NDArray[np.int64]  # (U,) all other items

    @classmethod
    def join(cls, parts: Sequence[RankCounts]) -> RankCounts:
        """Concatenate the counts of several groups of users."""
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("greater", "equal", "others")))


def rank_counts(scores: ArrayLike, labels: ArrayLike) -> RankCounts:
    """Rank the true item among the candidates.

    Args:
        scores: (U, N) scores, higher is better.
        labels: (U, N) 1 for the true item, else 0; one true item per row.

    Raises:
        ValueError: The shapes differ, a score is NaN, or a row has not exactly one true item.
    """
    s, y = np.asarray(scores), np.asarray(labels)
    if s.ndim != 2 or s.shape != y.shape:
        raise ValueError(f"scores of shape {s.shape} and labels of shape {y.shape}: both must be (U, N)")
    if np.isnan(s).any():
        raise ValueError(f"row {int(np.isnan(s).any(1).argmax())} of the scores has a NaN: it has no rank")
    is_true = y == 1
    if len(bad := np.flatnonzero((is_true.sum(1) != 1) | ((y != 0) & ~is_true).any(1))):
        raise ValueError(f"row {int(bad[0])} of the labels must have one 1, and 0 elsewhere")
    return rank_target(s, s[is_true], np.ones(s.shape, bool))


def rank_target(
    scores: NDArray[np.floating], target: NDArray[np.floating], is_ranked: NDArray[np.bool_]
) -> RankCounts:
    """Rank a true item among the items that take part.

    Args:
        scores: (U, N) scores, higher is better.
        target: (U,) score of each row's true item.
        is_ranked: (U, N) true where an item takes part; the true item must take part.
    """
    own = target[:, None]
    greater = ((scores > own) & is_ranked).sum(1)
    equal = ((scores == own) & is_ranked).sum(1) - 1
    return RankCounts(greater, equal, is_ranked.sum(1) - 1)


def user_metrics(counts: RankCounts, cutoffs: Sequence[int] = CUTOFFS) -> PerUser:
    """Each metric of each user, by expected rank.

    With g other items above and e tied, the rank r is uniform on g+1 .. g+e+1. AUC is the probability that
    the true item is ranked above another item, ties counting one half. HR@k is 1, MRR@k is 1/r, and NDCG@k is
    1/log2(r+1) where r <= k (one relevant item, so the ideal gain is 1); each is 0 where r > k.

    Args:
        counts: Rank counts of U users.
        cutoffs: The k of HR, MRR and NDCG.

    Returns:
        (U,) values by name: auc, hr@k, mrr@k, ndcg@k.
    """
    g, e = counts.greater, counts.equal
    others = np.maximum(counts.others, 1)
    found: PerUser = {"auc": (counts.others - g - e + e / 2) / others}
    ranks = np.arange(1, max(cutoffs) + 1)
    gains = {"hr": np.ones(len(ranks)), "mrr": 1 / ranks, "ndcg": 1 / np.log2(ranks + 1)}
    for name, gain in gains.items():
        total = np.append(0.0, np.cumsum(gain))  # (max k + 1,) summed gain of the first ranks
        for k in cutoffs:
            low, high = np.minimum(g, k), np.minimum(g + e + 1, k)
            found[f"{name}@{k}"] = (total[high] - total[low]) / (e + 1)
    return found


def summarize(values: PerUser, seed: int = 0) -> dict[str, Estimate]:
    """Mean of each metric over users, with a bootstrap interval over users."""
    return {name: bootstrap_mean(numbers, seed=seed) for name, numbers in values.items()}


def chance_levels(candidates: int, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Each metric of a random ranking: exact, not sampled.

    Args:
        candidates: N, the true item included.
        cutoffs: The k of HR, MRR and NDCG.
    """
    one = np.array([candidates - 1])
    all_tied = RankCounts(np.array([0]), one, one)
    return {name: float(value[0]) for name, value in user_metrics(all_tied, cutoffs).items()}


def compare(
    first: Mapping[str, ArrayLike], second: Mapping[str, ArrayLike], seed: int = 0
) -> dict[str, Estimate]:
    """First minus second, metric by metric, with a paired bootstrap over users.

    Args:
        first: (U,) values by metric, as `user_metrics` gives them.
        second: The same for the same users in the same order.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The two have different metrics, or different numbers of users.
    """
    if list(first) != list(second):
        raise ValueError(f"metrics {', '.join(first)} cannot be compared with {', '.join(second)}")
    return {name: paired_bootstrap(first[name], second[name], seed) for name in first}
