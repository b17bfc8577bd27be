"""Figures from per-problem numbers, and paired tests: pure maths.

Problems are the independent units everywhere: samples and seeds of one problem are clustered by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.jobs.result_groups import Cell
from llmctl.rise.metrics import pass_at_k
from llmctl.runs import Estimate, bootstrap_mean, wilson
from llmctl.runs.stats import Z, rate_of_clusters

Floats = NDArray[np.float64]

# With so many units a percentile bootstrap of a mean agrees with the normal interval to three digits, and
# takes minutes where that takes milliseconds.
MANY_UNITS = 20_000


@dataclass(frozen=True)
class Comparison:
    """Two models, or protocols, on the same problems."""

    difference: Estimate  # second minus first
    wins: int  # problems on which the second is better
    losses: int
    ties: int
    p_value: float  # two-sided
    test: str  # which

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "difference": self.difference.to_dict()}


def protocol_figures(protocol: str, n: int, cells: Sequence[Cell], seed: int = 0) -> dict[str, Estimate]:
    """The figures of one model, task and protocol.

    Args:
        protocol: single, parallel, sequential, reach_curve or msr_ranking.
        n: Its samples or turns.
        cells: One a seed, on the same problems.
        seed: Of the bootstrap.

    Returns:
        As RISE names them: `m1_t1`, one sample; `m<n>_t1`, a vote of n, and `pass_<k>` (parallel);
        `m1_t<n>`, a vote over the turns, `p1_t<n>`, any turn right, and `last_turn` (sequential). Then
        `reward` and `tokens` of a sample. Of a curve `reached`, the share of pairs. Of a ranking `auc`,
        `hr@k`, `mrr@k`, `ndcg@k`, and `answer_mass`, the share of all probability that is on yes or no.
    """
    figures: dict[str, Estimate] = {}
    samples = _stack(cells, "samples")
    if protocol == "reach_curve":
        return {"reached": rate_of_clusters(_stack(cells, "correct").sum(0), samples.sum(0))}
    if protocol == "msr_ranking":
        return {name: mean_estimate(_stack(cells, name).mean(0), seed) for name in _ranking_names(cells)}
    if protocol == "sequential":
        figures["m1_t1"] = estimate(_stack(cells, "first"), seed)
        for name, of in ((f"m1_t{n}", "vote"), (f"p1_t{n}", "any"), ("last_turn", "last")):
            figures[name] = estimate(_stack(cells, of), seed)
    else:
        correct = _stack(cells, "correct")
        is_one_each = bool((samples == 1).all())
        every = estimate(correct, seed) if is_one_each else rate_of_clusters(correct.sum(0), samples.sum(0))
        figures["m1_t1"] = every
        if protocol == "parallel":
            figures[f"m{n}_t1"] = estimate(_stack(cells, "vote"), seed)
            for k in _ks(n):
                figures[f"pass_{k}"] = estimate(_pass_at(correct, samples, k), seed)
    for name in ("reward", "tokens"):
        figures[name] = mean_estimate(_stack(cells, name).sum(0) / samples.sum(0), seed)
    return figures


def primary_figure(protocol: str, n: int) -> tuple[str, str]:
    """The figure that models are compared by: its name, and the per-problem numbers behind it."""
    names = {
        "single": ("m1_t1", "first"),
        "parallel": (f"m{n}_t1", "vote"),
        "reach_curve": ("reached", "share"),
        "msr_ranking": ("auc", "auc"),  # it uses the whole list of every user
    }
    return names.get(protocol, (f"m1_t{n}", "vote"))


def estimate(values: Floats, seed: int = 0) -> Estimate:
    """A mean over problems whose numbers lie in [0, 1].

    Args:
        values: (S, P), a row a seed.
        seed: Of the bootstrap.

    Returns:
        Wilson's interval where all are 0 or 1 (clustered by problem with several seeds), else the
        bootstrap over problems.
    """
    seeds, problems = values.shape
    if not np.isin(values, (0.0, 1.0)).all():
        return mean_estimate(values.mean(0), seed)
    if seeds == 1:
        return wilson(int(values.sum()), problems)
    return rate_of_clusters(values.sum(0), np.full(problems, float(seeds)))


def mean_estimate(values: Floats, seed: int = 0) -> Estimate:
    """A mean over problems, (P,), by bootstrap; by the normal interval above `MANY_UNITS`."""
    if len(values) <= MANY_UNITS:
        found = bootstrap_mean(values, seed=seed)
        # without spread the bootstrap has no width, which is not certainty
        return found if found.low != found.high else Estimate(found.value, None, None, found.n)
    mean, half = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, len(values))


def compare(first: Floats, second: Floats, seed: int = 0) -> Comparison:
    """Second minus first on the same problems.

    The test is the exact sign test over the problems on which the two differ; where all numbers are 0 or
    1 that is McNemar's exact test (Q. McNemar, Psychometrika 12, 1947).

    Args:
        first: (S, P), a row a seed.
        second: (S, P), the same problems.
        seed: Of the bootstrap.
    """
    a, b = first.mean(0), second.mean(0)
    wins, losses = int((b > a).sum()), int((b < a).sum())
    is_binary = bool(np.isin(np.stack([a, b]), (0.0, 1.0)).all())
    return Comparison(
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


def _ranking_names(cells: Sequence[Cell]) -> list[str]:
    """auc, hr@k, ..., as the cells have them."""
    return [name for name in cells[0].values if "@" in name or name in ("auc", "answer_mass")]


def _ks(n: int) -> list[int]:
    """2, 4, 8, ... and n; one sample is `m1_t1`."""
    return sorted({1 << power for power in range(1, n.bit_length())} | {n})


def _pass_at(correct: Floats, samples: Floats, k: int) -> Floats:
    """pass@k of each problem, (S, P); with fewer samples than k, whether any is right."""
    width = samples.max() + 1
    kinds, which = np.unique(samples * width + correct, return_inverse=True)
    table = [
        pass_at_k(n, c, min(k, n)) for n, c in ((int(kind // width), int(kind % width)) for kind in kinds)
    ]
    return np.array(table)[which].reshape(correct.shape)


def _stack(cells: Sequence[Cell], name: str) -> Floats:
    return np.stack([cell.values[name] for cell in cells])
