"""The work of a comparison, for `--dry-run`."""

from __future__ import annotations

from typing import Any

from llmctl.studies.adapters.arms import mismatch
from llmctl.studies.adapters.loop import Inputs
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.units import is_searching
from llmctl.training.estimate import count_steps


def estimate_comparison(recipe: AdapterCompareRecipe, inputs: Inputs) -> dict[str, Any]:
    """Sizes, trainings and steps. Rows are counted but not tokenized."""
    rows, arms = inputs.rows, inputs.arms
    trained = [arm for arm in arms if arm.settings is not None]
    found: dict[str, Any] = {
        f"trained parameters, {arm.name} ({arm.size})": arm.parameters for arm in trained
    }
    found["largest against smallest"] = f"{100 * mismatch(arms):+.2f} %"
    found["training rows"], found["validation rows"] = len(rows.training), len(rows.validation)
    found["trainings"] = len(trained) * len(recipe.seeds)
    if is_searching(recipe):
        found["trials of learning rates"] = len(trained) * len(recipe.search.rates)
    if recipe.data.block is None:
        found["steps per training, at most"] = count_steps(recipe.train, len(rows.training))
    return found
