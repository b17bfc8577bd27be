"""The run of `llmctl reach set --run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmctl.reach.describe import set_sentence, set_table
from llmctl.reach.reachable_sets.recipe import SetRecipe
from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec, Shown


def check_set(recipe: SetRecipe) -> None:
    """Find mistakes in the state before a folder is made."""
    from llmctl.reach.reachable_sets.run import check_state  # imports torch

    check_state(recipe)


def estimate_set(recipe: SetRecipe) -> dict[str, Any]:
    """The most controls that are scored."""
    work: dict[str, Any] = {"controls scored for k = 1, at most": "all tokens of the vocabulary"}
    if recipe.k > 1:
        work[f"controls scored for k = 2 to {recipe.k}, at most"] = recipe.exploration.forwards
    return work


def execute_set(run: Run, recipe: SetRecipe, checked: None, quiet: bool) -> dict[str, Any]:
    """Find the reachable set, and keep it in the run."""
    from llmctl.reach.reachable_sets.run import run_set  # imports torch

    return run_set(run, recipe, quiet=quiet)


def show_found(found: dict[str, Any], top: int) -> Iterator[Table | str]:
    """The first tokens of a reachable set, and its size in a sentence."""
    yield set_table(found, top)
    yield set_sentence(found)


def set_spec(top: int) -> RunSpec[SetRecipe, None, dict[str, Any]]:
    """The run, printing that many reached tokens."""

    def show(run: Run, recipe: SetRecipe, found: dict[str, Any]) -> Shown:
        return [*show_found(found, top), f"report: {run.folder / 'report.html'}"]

    return RunSpec(SetRecipe, check_set, estimate_set, execute_set, show)
