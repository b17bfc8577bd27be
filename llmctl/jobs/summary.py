"""The summary of a job: figures of every model x task x protocol, paired tests, gains at equal compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.curve import epsilons
from llmctl.jobs.metrics import compare, holm, primary_figure, protocol_figures
from llmctl.jobs.result_groups import Cell, Key, read_cells
from llmctl.jobs.spec import JobRecipe
from llmctl.reach.curves.recipe import CurveSettings

BOOTSTRAP_SEED = 0


def summarize_results(
    path: Path,
    recipe: JobRecipe,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    failed: Mapping[str, str] | None = None,
    rankings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What `summary.json` holds.

    Args:
        path: Of `results.parquet`.
        recipe: Of the job.
        costs: Tokens by model.
        failed: Models that are not in the results, and why.
        rankings: What stands beside the figures of each ranking, as `ranking.describe_rankings` gives it.

    Returns:
        `models`, `failed`, `figures` (a list, an entry each model x task x protocol), `comparisons` (each
        pair of models on the same problems), `equal_compute` (turns minus a vote of as many parallel
        samples). Intervals are of 95 %.

    Raises:
        UserError: The results are not of this job, or can not be read.
    """
    cells = read_cells(path, recipe.rankings)
    models = [name for name in recipe.models if name not in (failed or {})]
    groups = {
        (model, task, protocol): _seeds(cells, recipe, (model, task, protocol))
        for model in models
        for task, protocol in recipe.asked()
    }
    return {
        "models": {name: _model(recipe, name, costs or {}) for name in models},
        "failed": dict(failed or {}),
        "seeds": list(recipe.seeds),
        "bootstrap_seed": BOOTSTRAP_SEED,
        "figures": [
            _figures(recipe, key, found, path) | {**(rankings or {}).get(key[2], {})}
            for key, found in groups.items()
        ],
        "comparisons": _comparisons(recipe, models, groups),
        "equal_compute": _equal_compute(recipe, models, groups),
    }


Groups = Mapping[tuple[str, str, str], Sequence[Cell]]


def _seeds(cells: Mapping[Key, Cell], recipe: JobRecipe, group: tuple[str, str, str]) -> list[Cell]:
    found = []
    for seed in recipe.protocol_seeds(group[2]):
        if (*group, seed) not in cells:
            raise UserError(f"the results have no rows of {'/'.join(group)}, seed {seed}: run the job again")
        found.append(cells[(*group, seed)])
    if len({cell.problems for cell in found}) != 1:
        raise UserError(
            f"the seeds of {'/'.join(group)} are not on the same problems: run the job with --fresh"
        )
    return found


def _model(recipe: JobRecipe, name: str, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    spec = recipe.models[name]
    return {
        "model": spec.model,
        "adapter": None if spec.adapter is None else str(spec.adapter),
        **costs.get(name, {}),
    }


def _figures(
    recipe: JobRecipe, group: tuple[str, str, str], cells: Sequence[Cell], path: Path
) -> dict[str, Any]:
    model, task, protocol = group
    spec = recipe.protocols[protocol]
    adapter = recipe.models[model].adapter
    figures = protocol_figures(spec.protocol, spec.n, cells, BOOTSTRAP_SEED)
    if spec.is_curve:
        figures |= epsilons(path, model, protocol, (spec.curve or CurveSettings()).ks)
    entry: dict[str, Any] = {
        "model": model,
        "adapter": None if adapter is None else str(adapter),
        "task": task,
        "protocol": protocol,
        "kind": spec.protocol,
        "primary": primary_figure(spec.protocol, spec.n)[0],
        "problems": cells[0].count,
        "samples": int(sum(cell.values["samples"].sum() for cell in cells)),
        "errors": sum(cell.errors for cell in cells),
        "unreadable": 0 if spec.is_curve else sum(cell.unreadable for cell in cells),
        "figures": {name: figure.to_dict() for name, figure in figures.items()},
    }
    if spec.protocol == "sequential":
        entry["flows"] = {name: sum(cell.flows[name] for cell in cells) for name in cells[0].flows}
    return entry


def _comparisons(recipe: JobRecipe, models: Sequence[str], groups: Groups) -> list[dict[str, Any]]:
    entries = []
    for task, protocol in recipe.asked():
        spec = recipe.protocols[protocol]
        figure, values = primary_figure(spec.protocol, spec.n)
        for first, second in combinations(models, 2):
            a, b = (groups[(model, task, protocol)] for model in (first, second))
            about = {"task": task, "protocol": protocol, "figure": figure, "first": first, "second": second}
            entries.append(about | compare_cells(a, b, values))
    for entry, adjusted in zip(entries, holm([e["p_value"] for e in entries]), strict=True):
        entry["p_holm"] = adjusted
    return entries


def compare_cells(first: Sequence[Cell], second: Sequence[Cell], values: str) -> dict[str, Any]:
    """Second minus first, as `figures.compare` has it, for JSON.

    Raises:
        UserError: They are not on the same problems.
    """
    import numpy as np

    if first[0].problems != second[0].problems:
        raise UserError(
            "the two are not on the same problems in the same order: give both the same tasks and limit"
        )
    a, b = (np.stack([cell.values[values] for cell in cells]) for cells in (first, second))
    return compare(a, b, BOOTSTRAP_SEED).to_dict()


def _equal_compute(recipe: JobRecipe, models: Sequence[str], groups: Groups) -> list[dict[str, Any]]:
    """m1@tR minus mR@t1, for protocols that cost the same number of samples."""
    entries = []
    for turns, sequential in recipe.protocols.items():
        for votes, parallel in recipe.protocols.items():
            is_pair = (sequential.protocol, parallel.protocol) == ("sequential", "parallel")
            if not is_pair or sequential.n != parallel.n:
                continue
            for model in models:
                for task in recipe.tasks:
                    found = compare_cells(groups[(model, task, votes)], groups[(model, task, turns)], "vote")
                    entries.append(
                        {"model": model, "task": task, "first": votes, "second": turns, "samples": parallel.n}
                        | found
                    )
    return entries
