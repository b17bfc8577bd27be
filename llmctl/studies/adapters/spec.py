"""The run of `llmctl gin compare`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec
from llmctl.studies.adapters.estimate import estimate_comparison
from llmctl.studies.adapters.loop import Inputs, check_compare, run_comparison
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.report import result_table
from llmctl.studies.adapters.verdict import verdicts


def show_comparison(run: Run, recipe: AdapterCompareRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """The results of every arm, what they show, and where the report is."""
    yield result_table(recipe, metrics)
    yield from (f"- {sentence}" for sentence in verdicts(recipe, metrics))
    yield f"report: {run.folder / 'report.html'}"


COMPARE_RUN: RunSpec[AdapterCompareRecipe, Inputs, dict[str, Any]] = RunSpec(
    recipe=AdapterCompareRecipe,
    preflight=check_compare,
    # Sizes of adapters depend on the model, and steps on the rows, so that both are looked at for a plan too.
    estimate=lambda recipe: estimate_comparison(recipe, check_compare(recipe)),
    execute=lambda run, recipe, inputs, quiet: run_comparison(run, recipe, inputs=inputs, quiet=quiet),
    show=show_comparison,
)
