"""The report of a job: what was asked, figures with intervals, paired tests, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmctl.jobs.show import all_tables
from llmctl.jobs.spec import PROTOCOLS, JobRecipe
from llmctl.runs import Run, Section, Table, write_report
from llmctl.runs.tables import escape_markdown

_READING = (
    "`m1_t1` is one sample. A vote of n parallel samples, `m<n>_t1`, costs as many samples as a vote over n "
    "turns without an oracle, `m1_t<n>`; and `pass_<n>` as many as any of n turns being right, `p1_t<n>`. "
    "Compare within these pairs. Intervals are of 95 %, over problems: samples and seeds of one problem are "
    "not taken for independent."
)
_READING_RANKS = (
    "A ranking asks a model whether a user will choose each item of a frozen list, and ranks the list by "
    "P(yes). Its figures are by expected rank under ties, and `answer_mass` is the share of all probability "
    "that is on yes or no. Intervals are of 95 %, over users."
)


def write_job_report(run: Run, recipe: JobRecipe, summary: Mapping[str, Any]) -> Path:
    """Write `report.md` and `report.html` of a finished job."""
    sections = [
        Section("What was asked", [_models(recipe, summary), _protocols(recipe)]),
        Section("Figures", [*_readings(recipe), *all_tables(summary)]),
    ]
    if summary["failed"]:
        lines = [f"- {escape_markdown(f'{model}: {why}')}" for model, why in summary["failed"].items()]
        sections.append(Section("Models that failed", ["\n".join(lines)]))
    return write_report(run, "Evaluation job", sections)


def _readings(recipe: JobRecipe) -> list[str]:
    is_all_ranking = len(recipe.rankings) == len(recipe.protocols)
    return ([] if is_all_ranking else [_READING]) + ([_READING_RANKS] if recipe.rankings else [])


def _models(recipe: JobRecipe, summary: Mapping[str, Any]) -> Table:
    rows = [
        [name, entry["model"], entry["adapter"], recipe.models[name].engine]
        + [entry.get("prompt_tokens"), entry.get("new_tokens")]
        for name, entry in summary["models"].items()
    ]
    return Table(["name", "model", "adapter", "sampler", "prompt tokens", "new tokens"], rows)


def _protocols(recipe: JobRecipe) -> Table:
    rows = []
    for name, spec in recipe.protocols.items():
        sampling = recipe.protocol_sampling(name)
        asked: list[Any] = [spec.samples, sampling.temperature, sampling.top_p, sampling.max_tokens]
        if spec.own_task:
            asked = [None] * len(asked)  # nothing is sampled
        rows.append([name, PROTOCOLS[spec.protocol], *asked])
    columns = ["protocol", "what it is", "samples", "temperature", "top_p", "new tokens at most"]
    limits = {task: recipe.problem_limit(task) for task in recipe.tasks}
    asked_of = ", ".join(f"{task} (at most {limit})" if limit else task for task, limit in limits.items())
    on = f"On {asked_of}; seeds" if limits else "Seeds"
    return Table(columns, rows, f"{on} {', '.join(map(str, recipe.seeds))}.")
