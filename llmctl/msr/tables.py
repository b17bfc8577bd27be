"""What the commands print of data and baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.msr.data.prepare import Prepared
from llmctl.runs import Estimate, Table

SHOWN = ("auc", "hr@5", "hr@10", "mrr@5", "ndcg@5")  # what fits on a line; metrics.json has all


def filter_table(prepared: Prepared) -> Table:
    """Counts after every filter; the first row is what was read."""
    columns = ["filter", "interactions", "users", "items", "found"]
    rows = [[step[name] for name in ("name", *columns[1:])] for step in prepared.facts["steps"]]
    return Table(columns, rows, "What each filter left.")


def split_table(prepared: Prepared) -> Table:
    """Users and interactions of every split."""
    facts = prepared.facts
    rows = [[name, users, facts["interactions"][name]] for name, users in facts["users"].items()]
    caption = (
        f"{facts['items']:,} items: {facts['untitled']:,} with an empty title, {facts['without_text']:,} "
        f"without text, {facts['without_image']:,} without an image."
    )
    return Table(["split", "users", "interactions"], rows, caption)


def chance_table(prepared: Prepared) -> Table:
    """The level of every metric by guessing."""
    negatives = prepared.facts["negatives"]
    rows = [[name, round(value, 4)] for name, value in prepared.facts["chance"].items()]
    return Table(["metric", "by chance"], rows, f"1 true next item and {negatives} others a user.")


def metric_table(figures: Mapping[str, Mapping[str, Any]], prepared: Prepared) -> Table:
    """Figures of several models on the frozen lists, the level of chance last.

    Args:
        figures: By model; as `metrics.json` has them, or as `record_scores` gives them.
        prepared: The run's data.
    """
    rows = [[model, *(show(found[name]) for name in SHOWN)] for model, found in figures.items()]
    rows.append(["(exact chance)", *(f"{prepared.facts['chance'][name]:.3f}" for name in SHOWN)])
    caption = (
        f"{prepared.users('test'):,} test users, candidate lists {prepared.candidate_hash[:12]}; 95 % "
        "intervals by bootstrap over users; expected rank under ties."
    )
    return Table(["model", *SHOWN], rows, caption)


def full_table(figures: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Figures among all items that a user never touched; None where no model has them."""
    rows = [
        [model, *(show(found["full_ranking"][name]) for name in SHOWN)]
        for model, found in figures.items()
        if "full_ranking" in found
    ]
    caption = "Full ranking: the true next item among all items that the user never touched."
    return Table(["model", *SHOWN], rows, caption) if rows else None


def show(figure: Estimate | Mapping[str, Any]) -> str:
    """A figure with its interval, e.g. "0.612 [.590, .634]"."""
    plain = figure.to_dict() if isinstance(figure, Estimate) else figure
    if plain["low"] is None:
        return f"{plain['value']:.3f}"
    low, high = (f"{plain[name]:.3f}".removeprefix("0") for name in ("low", "high"))
    return f"{plain['value']:.3f} [{low}, {high}]"
