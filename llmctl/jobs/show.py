"""A finished job in tables: metrics with their intervals, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.protocols.base import problems_caption
from llmctl.jobs.protocols.registry import PROTOCOLS
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Estimate, Table
from llmctl.runs.files import read_json
from llmctl.runs.recipe import parse_recipe, read_recipe_file

SUMMARY = "summary.json"
# The heading of each status that has a column of its own; "ok" has none.
_STATUS_COLUMNS = {"refused": "refused", "too_long": "too long", "truncated": "truncated"}


def read_job(folder: Path) -> JobRecipe:
    """The recipe in a job's folder.

    Raises:
        UserError: The folder is no job.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no job: give the folder of an `llmctl eval run`")
    content = read_recipe_file(path, is_link_allowed=False)
    if (kind := content.pop("kind", None)) != JobRecipe.kind:
        raise UserError(f"{folder} is a run of kind {kind!r}, but an evaluation job is needed")
    return parse_recipe(JobRecipe, content, str(path))


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished job.

    Raises:
        UserError: The folder is no job, or the job is not finished.
    """
    read_job(folder)
    path = folder / SUMMARY
    if not path.is_file():
        raise UserError(f"{folder} is not finished: `llmctl eval run` continues it")
    summary: dict[str, Any] = read_json(path)
    return summary


def metric_tables(summary: Mapping[str, Any]) -> list[Table]:
    """One table per protocol, with one row per model and task."""
    protocols = list(dict.fromkeys(entry["protocol"] for entry in summary["figures"]))
    return [
        _protocol_table([e for e in summary["figures"] if e["protocol"] == protocol], protocol)
        for protocol in protocols
    ]


def comparison_table(entries: Sequence[Mapping[str, Any]], caption: str) -> Table:
    """Second minus first, with the paired test."""
    rows = [
        [
            entry["task"],
            entry.get("protocol", ""),
            entry.get("figure", ""),
            f"{entry['second']} - {entry['first']}",
            to_estimate(entry["difference"]),
            f"{entry['wins']} / {entry['losses']} / {entry['ties']}",
            entry["p_value"],
            entry.get("p_holm"),
        ]
        for entry in entries
    ]
    columns = ["task", "protocol", "figure", "models", "difference", "better / worse / same", "p", "p (Holm)"]
    return Table(columns, rows, caption)


def equal_compute_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Turns compared with as many parallel samples."""
    rows = [
        [e["model"], e["task"], f"{e['second']} - {e['first']}", to_estimate(e["difference"]), e["p_value"]]
        for e in entries
    ]
    return Table(
        ["model", "task", "protocols", "difference", "p"],
        rows,
        "A vote over the turns minus a vote of as many parallel samples: the gain at equal compute.",
    )


def all_tables(summary: Mapping[str, Any]) -> list[Table]:
    """All tables of a summary."""
    tables = metric_tables(summary)
    if summary["comparisons"]:
        caption = (
            "Paired by problem: bootstrap interval of the difference, exact sign test (McNemar's where one "
            "seed was run and answers are right or wrong), adjusted by Holm for the number of rows."
        )
        tables.append(comparison_table(summary["comparisons"], caption))
    if summary["equal_compute"]:
        tables.append(equal_compute_table(summary["equal_compute"]))
    return tables


def to_estimate(plain: Mapping[str, Any]) -> Estimate:
    """Read an estimate from its JSON."""
    return Estimate(plain["value"], plain["low"], plain["high"], plain["n"], plain.get("clusters"))


def _protocol_table(entries: Sequence[Mapping[str, Any]], protocol: str) -> Table:
    kind = entries[0]["kind"]
    definition = PROTOCOLS[kind] if kind in PROTOCOLS else None  # None: of a package that is gone
    hidden = definition.hidden if definition else frozenset()
    names = list(dict.fromkeys(name for entry in entries for name in entry["figures"] if name not in hidden))
    shown = {
        name: heading
        for name, heading in _STATUS_COLUMNS.items()
        if any(entry.get("statuses", {}).get(name) for entry in entries)
    }
    rows = []
    for entry in entries:
        metrics = [entry["figures"].get(name) for name in names]
        cells = [None if plain is None else _short(to_estimate(plain)) for plain in metrics]
        statuses = entry.get("statuses", {})  # missing in summaries from before samples had a status
        counts = [entry["errors"], entry["unreadable"], *(statuses.get(name) for name in shown)]
        model = f"{entry['model']} (partial)" if entry.get("is_partial") else entry["model"]
        rows.append([model, entry["task"], *cells, *counts])
    columns = ["model", "task", *names, "engine errors", "unreadable", *shown.values()]
    caption = definition.caption if definition else problems_caption
    return Table(columns, rows, caption(protocol, entries))


def _short(metric: Estimate) -> str:
    """An estimate without n, which the caption gives."""
    return metric.format().partition(", n =")[0]
