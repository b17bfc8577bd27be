"""The runs of `llmctl reach curve` and `llmctl reach compare`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmctl.reach.curves.compare import check_comparison, estimate_comparison, run_comparison
from llmctl.reach.curves.compare_recipe import CurveComparisonRecipe
from llmctl.reach.curves.compare_records import CurveComparison
from llmctl.reach.curves.compare_report import comparison_sentences, comparison_table
from llmctl.reach.curves.known import known_curve
from llmctl.reach.curves.preflight import check_curve, estimate_work
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.report import epsilon_table, sentences
from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec


def execute_curve(run: Run, recipe: CurveRecipe, checked: None, quiet: bool) -> dict[str, Any]:
    """Search every pair of the recipe."""
    from llmctl.reach.curves.run import run_curve  # imports torch

    return run_curve(run, recipe, quiet=quiet)


def show_curve(run: Run, recipe: CurveRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """Epsilon by control length beside known curves, what it shows, and where the report is."""
    yield epsilon_table(metrics, [known_curve(source) for source in recipe.beside])
    yield from (f"- {sentence}" for sentence in sentences(recipe, metrics))
    yield f"report: {run.folder / 'report.html'}"


def show_comparison(found: CurveComparison) -> Iterator[Table | str]:
    """The paired differences, and what they show."""
    yield comparison_table(found)
    yield from (f"- {sentence}" for sentence in comparison_sentences(found))


def show_compare_run(
    run: Run, recipe: CurveComparisonRecipe, found: CurveComparison
) -> Iterator[Table | str]:
    """The paired differences, what they show, and where the report is."""
    yield from show_comparison(found)
    yield f"report: {run.folder / 'report.html'}"


CURVE_RUN: RunSpec[CurveRecipe, None, dict[str, Any]] = RunSpec(
    recipe=CurveRecipe,
    preflight=check_curve,
    estimate=estimate_work,
    execute=execute_curve,
    show=show_curve,
)
COMPARE_RUN: RunSpec[CurveComparisonRecipe, None, CurveComparison] = RunSpec(
    recipe=CurveComparisonRecipe,
    preflight=check_comparison,
    estimate=estimate_comparison,
    execute=lambda run, recipe, checked, quiet: run_comparison(run, recipe, quiet=quiet),
    show=show_compare_run,
)
