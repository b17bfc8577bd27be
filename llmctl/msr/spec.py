"""The runs of MLLM-MSR: the whole run, its phases alone, the prepared data, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmctl.msr.baselines import run_baselines
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.data.prepared import open_prepared
from llmctl.msr.data.readers import open_source
from llmctl.msr.data.tables import chance_table, filter_table, split_table
from llmctl.msr.evaluation.tables import full_table, metric_table
from llmctl.msr.phases import MsrPhases
from llmctl.msr.preflight import check_inputs, estimate_work
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.run import run_msr, run_phases
from llmctl.runs import Run, Table
from llmctl.runs.files import read_json
from llmctl.runs.spec import RunSpec, Shown

MsrSpec = RunSpec[MsrRecipe, None, dict[str, Any]]


def show_metrics(run: Run, recipe: MsrRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """The metrics of every model, how they compare, and where the report is."""
    yield metric_table(metrics, open_prepared(run.folder))
    yield from (f"- {one['sentence']}" for one in read_json(run.folder / "comparisons.json"))
    yield f"report: {run.folder / 'report.html'}"


def score_models(phases: MsrPhases) -> None:
    """Score the frozen lists with every model of the recipe."""
    for arm in phases.recipe.resolved_arms:
        for model in arm.models:
            phases.evaluate(arm, model)


MSR_RUN: MsrSpec = RunSpec(
    recipe=MsrRecipe,
    preflight=check_inputs,
    estimate=estimate_work,
    execute=lambda run, recipe, checked, quiet: run_msr(run, recipe, quiet=quiet),
    show=show_metrics,
)
EVALUATE_RUN: MsrSpec = RunSpec(
    recipe=MsrRecipe,
    preflight=check_inputs,
    estimate=estimate_work,
    execute=lambda run, recipe, checked, quiet: run_phases(run, recipe, score_models, quiet=quiet),
    show=show_metrics,
)


def _phase_spec(command: str, work: Callable[[MsrPhases], dict[str, Any]]) -> MsrSpec:
    """One phase, whose result is a few counts."""

    def execute(run: Run, recipe: MsrRecipe, checked: None, quiet: bool) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        run_phases(run, recipe, lambda phases: counts.update(work(phases)), quiet=quiet)
        return counts

    def show(run: Run, recipe: MsrRecipe, counts: dict[str, Any]) -> Shown:
        return [
            Table(["", command], [[name, str(value)] for name, value in counts.items()]),
            f"run: {run.folder}",
        ]

    return RunSpec(MsrRecipe, check_inputs, estimate_work, execute, show)


def _summarize_users(phases: MsrPhases) -> dict[str, Any]:
    phases.describe_items()
    arms = [arm for arm in phases.recipe.resolved_arms if arm.users.mode != "none"]
    for arm in arms:
        phases.summarize_users(arm)
    journals = {phases.recipe.summaries_of(arm) for arm in arms}
    return {name: sum(1 for _ in phases.run.journal(name)) for name in sorted(journals)}


def _train(phases: MsrPhases) -> dict[str, Any]:
    found = {}
    for arm in phases.recipe.resolved_arms:
        if (result := phases.train(arm)) is not None:
            found[arm.name] = {
                "output": str(result.output),
                "rows": result.rows,
                "dropped_rows": result.dropped_rows,
                "steps": result.steps,
                "last_loss": result.losses[-1],
                "seconds": round(result.seconds, 1),
            }
    return found


SUMMARIZE_ITEMS_RUN = _phase_spec("msr summarize-items", lambda phases: dict(phases.describe_items()))
SUMMARIZE_USERS_RUN = _phase_spec("msr summarize-users", _summarize_users)
TRAIN_RUN = _phase_spec("msr train", _train)


def check_data(recipe: MsrRecipe) -> None:
    """Find mistakes in the data files before a folder is made."""
    open_source(recipe.data)


def show_data(run: Run, recipe: MsrRecipe, facts: dict[str, Any]) -> Iterator[Table | str]:
    """Filters, split and chance levels of the prepared data."""
    prepared = open_prepared(run.folder)
    yield from (filter_table(prepared), split_table(prepared), chance_table(prepared))
    yield f"data version:   {prepared.data_version}\ncandidate hash: {prepared.candidate_hash}"
    yield f"run: {run.folder}"


def show_baselines(run: Run, recipe: MsrRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """The metrics of every baseline on the lists, and among all items."""
    yield metric_table(metrics, open_prepared(run.folder))
    if (full := full_table(metrics)) is not None:
        yield full
    yield f"run: {run.folder}"


PREPARE_RUN: MsrSpec = RunSpec(
    recipe=MsrRecipe,
    preflight=check_data,
    estimate=lambda recipe: {"files to read": 2},
    execute=lambda run, recipe, checked, quiet: dict(prepare_data(run, recipe).facts),
    show=show_data,
)
BASELINES_RUN: MsrSpec = RunSpec(
    recipe=MsrRecipe,
    preflight=check_data,
    estimate=lambda recipe: {"baselines": len(recipe.baselines.names)},
    execute=lambda run, recipe, checked, quiet: dict(
        run_baselines(run, recipe, prepare_data(run, recipe), quiet=quiet)
    ),
    show=show_baselines,
)
