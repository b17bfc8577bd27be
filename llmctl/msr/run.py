"""A whole run: prepare, describe items, summarize users, train, evaluate, baselines, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmctl.models import resolve
from llmctl.models.description import fingerprint
from llmctl.msr.baselines import run_baselines
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.evaluation.comparisons import calibrations, find_comparisons
from llmctl.msr.evaluation.scores import combine_scores, update_metrics
from llmctl.msr.phases import MsrPhases
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.report import write_msr_report
from llmctl.runs import Run


def run_msr(run: Run, recipe: MsrRecipe, *, quiet: bool = False) -> dict[str, Any]:
    """Do what is missing of a run; metrics, scores and report are in its folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        quiet: Show no progress.

    Returns:
        The content of `metrics.json`: the metrics of every model and baseline.

    Raises:
        UserError: Data or a model cannot be used, or differs from what the run was started with.
    """

    def work(phases: MsrPhases) -> None:
        phases.describe_items()
        for arm in recipe.resolved_arms:
            phases.summarize_users(arm)
        for arm in recipe.resolved_arms:
            phases.train(arm)
            for model in arm.models:
                phases.evaluate(arm, model)

    return run_phases(run, recipe, work, quiet=quiet, with_baselines=True)


def run_phases(
    run: Run,
    recipe: MsrRecipe,
    work: Callable[[MsrPhases], Any],
    *,
    quiet: bool = False,
    with_baselines: bool = False,
) -> dict[str, Any]:
    """Run some phases, and bring metrics and report up to date.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        work: Calls the phases to run.
        quiet: Show no progress.
        with_baselines: Fit and score the baselines as well.

    Returns:
        The content of `metrics.json`; empty as long as no model is evaluated.
    """
    pin_models(run, recipe)
    prepared = prepare_data(run, recipe)
    phases = MsrPhases(run, recipe, prepared, quiet)
    try:
        work(phases)
        if with_baselines:
            run_baselines(run, recipe, prepared, quiet=quiet)
        return finish(phases)
    finally:
        phases.close()


def pin_models(run: Run, recipe: MsrRecipe) -> None:
    """Refuse to go on with other weights than the run was started with."""
    names = set()
    for arm in recipe.resolved_arms:
        names.add(arm.recommender.model)
        if arm.users.mode != "none" and arm.users.sampler.engine != "server":
            names.add(arm.users.llm)
        if arm.reads_descriptions and recipe.items.vlm and recipe.items.sampler.engine != "server":
            names.add(recipe.items.vlm)
    run.pin(**{f"fingerprint of {name}": fingerprint(resolve(name)) for name in sorted(names)})


def finish(phases: MsrPhases) -> dict[str, Any]:
    """Write metrics, comparisons and report from what the run has so far."""
    run, recipe, prepared = phases.run, phases.recipe, phases.prepared
    metrics = update_metrics(run)
    if not metrics:
        return metrics
    combine_scores(run)
    comparisons = find_comparisons(run, recipe, prepared)
    fits = calibrations(run, recipe, prepared)
    run.write_json("comparisons.json", [one.to_dict() for one in comparisons])
    run.write_json("calibration.json", {name: fit.to_dict() for name, fit in fits.items()})
    write_msr_report(phases.reader, run, metrics, comparisons, fits)
    return metrics
