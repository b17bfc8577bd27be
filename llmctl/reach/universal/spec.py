"""The run of `llmctl reach optimize`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmctl.reach.universal.data import PairData
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import score_table, sentences
from llmctl.reach.universal.run import check_inputs, estimate_work, run_optimize
from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec


def show_optimize(run: Run, recipe: OptimizeRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """The scores, the control, what they show, and where the report is."""
    yield score_table(recipe, metrics)
    yield f"control: {metrics['control']['text']!r}, ids {metrics['control']['ids']}"
    yield from (f"- {sentence}" for sentence in sentences(recipe, metrics))
    yield f"report: {run.folder / 'report.html'}"


OPTIMIZE_RUN: RunSpec[OptimizeRecipe, PairData, dict[str, Any]] = RunSpec(
    recipe=OptimizeRecipe,
    preflight=check_inputs,
    # The work depends on how many pairs there are, so that they are read for a plan too.
    estimate=lambda recipe: estimate_work(recipe, check_inputs(recipe)),
    execute=lambda run, recipe, data, quiet: run_optimize(run, recipe, data, quiet=quiet),
    show=show_optimize,
)
