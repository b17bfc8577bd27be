"""The report of a job: what was asked, metrics with intervals, paired tests, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmctl.jobs.show import all_tables
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Run, Section, Table, write_report
from llmctl.runs.tables import escape_markdown


def write_job_report(run: Run, recipe: JobRecipe, summary: Mapping[str, Any]) -> Path:
    """Write `report.md` and `report.html` of a finished job."""
    sections = [
        Section("What was asked", [_models(recipe, summary), _protocols(recipe)]),
        Section("Metrics", [*_readings(recipe), *all_tables(summary)]),
    ]
    if summary["failed"]:
        lines = [f"- {escape_markdown(f'{model}: {why}')}" for model, why in summary["failed"].items()]
        sections.append(Section("Models that failed", ["\n".join(lines)]))
    return write_report(run, "Evaluation job", sections)


def _readings(recipe: JobRecipe) -> list[str]:
    """How the metrics are read, once for protocols that share a text."""
    return list(dict.fromkeys(recipe.protocols[name].definition.reading for _, name in recipe.pairs()))


def _models(recipe: JobRecipe, summary: Mapping[str, Any]) -> Table:
    rows = [
        [name, entry["model"], entry["adapter"], recipe.models[name].engine]
        + [entry.get("prompt_tokens"), entry.get("new_tokens")]
        + ([entry.get("cost")] if recipe.prices else [])
        for name, entry in summary["models"].items()
    ]
    columns = ["name", "model", "adapter", "sampler", "prompt tokens", "new tokens"]
    return Table([*columns, "cost"] if recipe.prices else columns, rows)


def _protocols(recipe: JobRecipe) -> Table:
    rows = []
    for name, spec in recipe.protocols.items():
        sampling = recipe.protocol_sampling(name)
        asked: list[Any] = [spec.samples, sampling.temperature, sampling.top_p, sampling.max_tokens]
        if not spec.definition.samples_text:
            asked = [None] * len(asked)  # no text is sampled
        rows.append([name, spec.definition.description, *asked])
    columns = ["protocol", "what it is", "samples", "temperature", "top_p", "maximum new tokens"]
    limits = {task: recipe.problem_limit(task) for task in recipe.tasks}
    asked_of = ", ".join(f"{task} (at most {limit})" if limit else task for task, limit in limits.items())
    on = f"On {asked_of}; seeds" if limits else "Seeds"
    return Table(columns, rows, f"{on} {', '.join(map(str, recipe.seeds))}.")
