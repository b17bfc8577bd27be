"""The journals of a comparison, and the keys of their lines."""

from __future__ import annotations

from typing import Any

from llmctl.runs import Run
from llmctl.studies.adapters.arms import Arm
from llmctl.studies.adapters.recipe import CompareRecipe

UNITS, SEARCH = "units", "search"  # journals


def is_searching(recipe: CompareRecipe) -> bool:
    """Whether arms choose among learning rates."""
    return len(recipe.search.rates) > 1


def unit_key(arm: Arm, seed: int) -> str:
    """Of a unit's journal line; a model that is not trained is the same for all seeds."""
    return arm.name if arm.settings is None else f"{arm.name}/{seed}"


def read_units(run: Run) -> dict[str, dict[str, Any]]:
    """The finished units by key."""
    return {line["key"]: line for line in run.journal(UNITS)}
