"""The journals of a comparison and the keys of their lines."""

from __future__ import annotations

from llmctl.runs import Run
from llmctl.studies.adapters.arms import Arm
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.unit_result import UnitResult

UNITS, SEARCH = "units", "search"  # journals


def is_searching(recipe: AdapterCompareRecipe) -> bool:
    """Whether arms choose among learning rates."""
    return len(recipe.search.rates) > 1


def unit_key(arm: Arm, seed: int) -> str:
    """The key of a unit's journal line. A model that is not trained has one line for all seeds."""
    return arm.name if arm.settings is None else f"{arm.name}/{seed}"


def read_units(run: Run) -> dict[str, UnitResult]:
    """The finished units by key."""
    return {line["key"]: UnitResult.from_dict(line) for line in run.journal(UNITS)}
