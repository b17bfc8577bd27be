"""Tables of metrics, for commands and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.msr.data.prepared import PreparedData
from llmctl.msr.evaluation.comparisons import ModelComparison
from llmctl.runs import Estimate, Table

METRICS = ("auc", "hr@5", "hr@10", "mrr@5", "ndcg@5")  # what fits on a line; metrics.json has all
COMPARED = ("auc", "hr@5", "mrr@5", "ndcg@5")


def metric_table(metrics: Mapping[str, Mapping[str, Any]], prepared: PreparedData) -> Table:
    """Metrics of several models on the candidate lists; the last row is a random ranking.

    Args:
        metrics: By model, in the layout of `metrics.json`.
        prepared: The run's data.
    """
    rows = [[model, *(show(found[name]) for name in METRICS)] for model, found in metrics.items()]
    rows.append(["(exact chance)", *(f"{prepared.summary.chance[name]:.3f}" for name in METRICS)])
    caption = (
        f"{prepared.users('test'):,} test users, candidate lists {prepared.candidate_hash[:12]}; 95 % "
        "intervals by bootstrap over users; expected rank under ties."
    )
    return Table(["model", *METRICS], rows, caption)


def full_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Metrics of the full ranking; None where no model has them."""
    rows = [
        [model, *(show(found["full_ranking"][name]) for name in METRICS)]
        for model, found in metrics.items()
        if "full_ranking" in found
    ]
    caption = "Full ranking: the true next item among all items that the user never interacted with."
    return Table(["model", *METRICS], rows, caption) if rows else None


def comparison_table(comparisons: Sequence[ModelComparison], seed: int) -> Table:
    """Differences between models on the same users."""
    rows = [
        [one.claim, one.first, one.second, *(_signed(one.differences[name]) for name in COMPARED)]
        for one in comparisons
    ]
    caption = f"First minus second, 95 % intervals by paired bootstrap over users, seed {seed}."
    return Table(["claim", "first", "second", *COMPARED], rows, caption)


def show(metric: Estimate | Mapping[str, Any]) -> str:
    """A metric with its interval, e.g. "0.612 [.590, .634]"."""
    plain = metric.to_dict() if isinstance(metric, Estimate) else metric
    if plain["low"] is None:
        return f"{plain['value']:.3f}"
    low, high = (f"{plain[name]:.3f}".removeprefix("0") for name in ("low", "high"))
    return f"{plain['value']:.3f} [{low}, {high}]"


def _signed(difference: Estimate) -> str:
    if difference.value is None:
        return ""
    interval = "" if difference.low is None else f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    return f"{difference.value:+.3f}{interval}"
