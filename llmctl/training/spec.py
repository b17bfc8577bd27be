"""The run of `llmctl train sft`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec
from llmctl.training.data.sources import Rows
from llmctl.training.estimate import estimate_sft
from llmctl.training.preflight import check_sft
from llmctl.training.recipe import SftRecipe
from llmctl.training.sft import run_sft
from llmctl.training.sft_report import pass_table, verdicts


def show_sft(run: Run, recipe: SftRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """Losses by epoch, what they show, and where model and report are."""
    yield pass_table(recipe, metrics)
    yield from (f"- {sentence}" for sentence in verdicts(metrics))
    yield f"model: {run.folder / metrics['output']}"
    yield f"report: {run.folder / 'report.html'}"


SFT_RUN: RunSpec[SftRecipe, Rows, dict[str, Any]] = RunSpec(
    recipe=SftRecipe,
    preflight=check_sft,
    estimate=estimate_sft,
    execute=lambda run, recipe, rows, quiet: run_sft(run, recipe, rows=rows, quiet=quiet),
    show=show_sft,
)
