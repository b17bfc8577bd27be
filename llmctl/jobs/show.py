"""A finished job in tables: figures with their intervals, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Estimate, Table
from llmctl.runs.files import read_json
from llmctl.runs.recipe import parse_recipe, read_recipe_file

# For machines: of built-in tasks the reward says little beside the rest, and of a ranking one k is shown.
_HIDDEN = ("reward", *(f"{metric}@{k}" for metric in ("hr", "mrr", "ndcg") for k in (3, 10)))


def read_job(folder: Path) -> JobRecipe:
    """The recipe of a job's folder.

    Raises:
        UserError: The folder is no job.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no job: give the folder of an `llmctl eval run`")
    content = read_recipe_file(path)
    if (kind := content.pop("kind", None)) != JobRecipe.kind:
        raise UserError(f"{folder} is a run of kind {kind!r}, but an evaluation job is needed")
    return parse_recipe(JobRecipe, content, str(path))


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished job.

    Raises:
        UserError: The folder is no job, or the job is not finished.
    """
    read_job(folder)
    path = folder / "summary.json"
    if not path.is_file():
        raise UserError(f"{folder} is not finished: `llmctl eval run` goes on with it")
    summary: dict[str, Any] = read_json(path)
    return summary


def figure_tables(summary: Mapping[str, Any]) -> list[Table]:
    """One table a protocol, a row each model and task."""
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
    """Turns against as many parallel samples."""
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
    """Everything that a summary has to show."""
    tables = figure_tables(summary)
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
    """An estimate from its JSON."""
    return Estimate(plain["value"], plain["low"], plain["high"], plain["n"], plain.get("clusters"))


def _protocol_table(entries: Sequence[Mapping[str, Any]], protocol: str) -> Table:
    names = list(dict.fromkeys(name for entry in entries for name in entry["figures"] if name not in _HIDDEN))
    rows = []
    for entry in entries:
        figures = [entry["figures"].get(name) for name in names]
        cells = [None if plain is None else _short(to_estimate(plain)) for plain in figures]
        rows.append([entry["model"], entry["task"], *cells, entry["errors"], entry["unreadable"]])
    columns = ["model", "task", *names, "engine errors", "unreadable"]
    if "candidate_hash" in entries[0]:
        return Table(columns, rows, _ranking_caption(protocol, entries[0]))
    counts = {(entry["problems"], entry["samples"]) for entry in entries}
    said = " and ".join(f"{problems:,} problems, {samples:,} samples" for problems, samples in sorted(counts))
    caption = f"{protocol}: 95 % intervals over problems ({said} a row)."
    return Table(columns, rows, caption)


def _ranking_caption(protocol: str, entry: Mapping[str, Any]) -> str:
    chance = ", ".join(f"{k} {v:.3f}" for k, v in entry["chance"].items() if k not in _HIDDEN)
    return (
        f"{protocol}: 95 % intervals over users ({entry['problems']:,} users, {entry['samples']:,} "
        f"candidates a row), asked as arm {entry['arm']} of {entry['run']}; hash of the lists "
        f"{entry['candidate_hash'][:12]}. By chance: {chance}."
    )


def _short(figure: Estimate) -> str:
    """Without n, which the caption has."""
    return figure.format().partition(", n =")[0]
