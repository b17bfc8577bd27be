"""The summary of a job: metrics of every model x task x protocol, paired tests, gains at equal compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.jobs.metrics import PairedComparison, compare, holm
from llmctl.jobs.protocols.base import GroupResults
from llmctl.jobs.records import GroupKey
from llmctl.jobs.result_groups import ResultGroup, read_result_groups
from llmctl.jobs.sections import Price
from llmctl.jobs.spec import JobRecipe
from llmctl.sampling.types import STATUSES

BOOTSTRAP_SEED = 0
Asked = tuple[str, str, str]  # model, task, protocol
Groups = Mapping[Asked, Sequence[ResultGroup]]  # one group for each seed


def summarize_results(
    path: Path,
    recipe: JobRecipe,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    failed: Mapping[str, str] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    is_finished: bool = True,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        path: Path of `results.parquet`.
        recipe: The job's recipe.
        costs: Tokens by model, from `model_costs`.
        failed: Models that failed, and why; the results have the shards that they finished before.
        facts: What stands beside the metrics of each protocol, from `protocol_facts`.
        is_finished: False where shards of any model may be missing.

    Returns:
        `models`, `failed`, `figures` (a list with one entry per model x task x protocol), `comparisons`
        (each pair of models on the same problems), `equal_compute` (turns minus a vote of as many parallel
        samples). Intervals are of 95 %. An entry with `is_partial` covers the problems that were finished
        under every seed; such entries are not compared.

    Raises:
        UserError: The results do not belong to this job, or cannot be read.
    """
    found = read_job_groups(path, recipe)
    models = [name for name in recipe.models if is_finished and name not in (failed or {})]
    groups = {
        (model, task, protocol): seed_groups(found, recipe, (model, task, protocol))
        for model in models
        for task, protocol in recipe.pairs()
    }
    parts = _partial_groups(found, recipe, [name for name in recipe.models if name not in models])
    known = [name for name in recipe.models if name in models or any(name == asked[0] for asked in parts)]
    return {
        "models": {name: _model(recipe, name, costs or {}) for name in known},
        "failed": dict(failed or {}),
        "seeds": list(recipe.seeds),
        "bootstrap_seed": BOOTSTRAP_SEED,
        "figures": [
            _metrics_entry(recipe, asked, each, path) | {**(facts or {}).get(asked[2], {})}
            for asked, each in groups.items()
        ]
        + [_metrics_entry(recipe, asked, each, path) | {"is_partial": True} for asked, each in parts.items()],
        "comparisons": _comparisons(recipe, models, groups),
        "equal_compute": _equal_compute(recipe, models, groups),
    }


def read_job_groups(path: Path, recipe: JobRecipe) -> dict[GroupKey, ResultGroup]:
    """The result groups of a job, with the numbers per problem that its protocols add."""
    extra = {name: spec.definition.problem_values for name, spec in recipe.protocols.items()}
    return read_result_groups(path, extra)


def _partial_groups(
    found: Mapping[GroupKey, ResultGroup], recipe: JobRecipe, models: Sequence[str]
) -> dict[Asked, list[ResultGroup]]:
    """The groups of models that did not finish, on the problems that every seed has."""
    partial: dict[Asked, list[ResultGroup]] = {}
    for model in models:
        for task, protocol in recipe.pairs():
            groups = [found.get((model, task, protocol, seed)) for seed in recipe.protocol_seeds(protocol)]
            # Parts of a curve or of a ranking are not read by problem.
            if recipe.protocols[protocol].definition.task_name is not None or None in groups:
                continue
            whole = [group for group in groups if group is not None]
            shared = set.intersection(*(set(group.ids) for group in whole))
            ids = [problem for problem in whole[0].ids if problem in shared]
            if ids:
                partial[model, task, protocol] = [group.take(ids) for group in whole]
    return partial


def model_costs(
    lines: Iterable[Mapping[str, Any]], prices: Mapping[str, Price] | None = None
) -> dict[str, dict[str, float]]:
    """Tokens by model, from the lines of the journal of shards, and their `cost` where there is a price."""
    costs: dict[str, dict[str, float]] = {}
    for line in lines:
        mine = costs.setdefault(line["model"], {"prompt_tokens": 0, "new_tokens": 0})
        mine["prompt_tokens"] += line["prompt_tokens"]
        mine["new_tokens"] += line["tokens"]
    for model, price in (prices or {}).items():
        if model in costs:
            mine = costs[model]
            mine["cost"] = price.cost(mine["prompt_tokens"], mine["new_tokens"])
    return costs


def protocol_facts(recipe: JobRecipe) -> dict[str, dict[str, Any]]:
    """What stands beside the metrics of each protocol of a job."""
    return {name: spec.definition.facts(recipe, name) for name, spec in recipe.protocols.items()}


def compare_groups(
    first: Sequence[ResultGroup], second: Sequence[ResultGroup], values: str
) -> PairedComparison:
    """Second minus first.

    Args:
        first: One group for each seed.
        second: The same for the other model or protocol.
        values: Name of the numbers per problem to compare.

    Raises:
        UserError: They are not on the same problems.
    """
    if first[0].problems != second[0].problems:
        raise UserError(
            "the two are not on the same problems in the same order: give both the same tasks and limit"
        )
    a, b = (np.stack([group.values[values] for group in groups]) for groups in (first, second))
    return compare(a, b, BOOTSTRAP_SEED)


def add_holm(entries: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` to entries of comparisons: their p-values adjusted for the number of entries."""
    for entry, adjusted in zip(entries, holm([e["p_value"] for e in entries]), strict=True):
        entry["p_holm"] = adjusted


def seed_groups(groups: Mapping[GroupKey, ResultGroup], recipe: JobRecipe, asked: Asked) -> list[ResultGroup]:
    """The groups of one model, task and protocol, one for each seed.

    Raises:
        UserError: A seed is missing, or seeds are on different problems.
    """
    found = []
    for seed in recipe.protocol_seeds(asked[2]):
        if (*asked, seed) not in groups:
            raise UserError(f"the results have no rows of {'/'.join(asked)}, seed {seed}: run the job again")
        found.append(groups[(*asked, seed)])
    if len({group.problems for group in found}) != 1:
        raise UserError(
            f"the seeds of {'/'.join(asked)} are not on the same problems: run the job with --fresh"
        )
    return found


def _model(recipe: JobRecipe, name: str, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    spec = recipe.models[name]
    return {
        "model": spec.model,
        "adapter": None if spec.adapter is None else str(spec.adapter),
        **costs.get(name, {}),
    }


def _metrics_entry(
    recipe: JobRecipe, asked: Asked, groups: Sequence[ResultGroup], path: Path
) -> dict[str, Any]:
    model, task, protocol = asked
    spec, adapter = recipe.protocols[protocol], recipe.models[model].adapter
    definition = spec.definition
    results = GroupResults(model, task, protocol, spec, groups, path, BOOTSTRAP_SEED)
    entry: dict[str, Any] = {
        "model": model,
        "adapter": None if adapter is None else str(adapter),
        "task": task,
        "protocol": protocol,
        "kind": spec.protocol,
        "primary": definition.primary(spec).name,
        "problems": groups[0].count,
        "samples": sum(group.total("asked") for group in groups),
        "errors": sum(group.total("error") for group in groups),
        "unreadable": sum(group.total("unreadable") for group in groups) if definition.reads_answers else 0,
        "statuses": {status: sum(group.total(status) for group in groups) for status in STATUSES},
        "figures": {name: metric.to_dict() for name, metric in definition.metrics(results).items()},
    }
    return entry | definition.group_facts(results)


def _comparisons(recipe: JobRecipe, models: Sequence[str], groups: Groups) -> list[dict[str, Any]]:
    entries = []
    for task, protocol in recipe.pairs():
        spec = recipe.protocols[protocol]
        primary = spec.definition.primary(spec)
        for first, second in combinations(models, 2):
            a, b = (groups[(model, task, protocol)] for model in (first, second))
            about = {
                "task": task,
                "protocol": protocol,
                "figure": primary.name,
                "first": first,
                "second": second,
            }
            entries.append(about | compare_groups(a, b, primary.values).to_dict())
    add_holm(entries)
    return entries


def _equal_compute(recipe: JobRecipe, models: Sequence[str], groups: Groups) -> list[dict[str, Any]]:
    """Protocols minus the ones that cost the same number of samples: m1@tR minus mR@t1."""
    entries = []
    for second, first in _equal_pairs(recipe):
        spec = recipe.protocols[first]
        values = spec.definition.primary(spec).values
        for model in models:
            for task in recipe.tasks:
                found = compare_groups(groups[(model, task, first)], groups[(model, task, second)], values)
                about = {
                    "model": model,
                    "task": task,
                    "first": first,
                    "second": second,
                    "samples": spec.samples,
                }
                entries.append(about | found.to_dict())
    return entries


def _equal_pairs(recipe: JobRecipe) -> list[tuple[str, str]]:
    """Pairs of protocols of a job whose second costs as many samples as the first."""
    return [
        (name, other)
        for name, spec in recipe.protocols.items()
        for other, against in recipe.protocols.items()
        if against.protocol == spec.definition.equal_compute and against.samples == spec.samples
    ]
