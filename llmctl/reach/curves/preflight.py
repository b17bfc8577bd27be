"""Checks before a curve's folder is made, and an estimate of its work."""

from __future__ import annotations

from typing import Any

from llmctl.models import resolve
from llmctl.models.description import check_adapter
from llmctl.reach.curves.known import known_curve
from llmctl.reach.curves.plan import planned_forwards, problem_template
from llmctl.reach.curves.recipe import CurveRecipe, CurveSettings
from llmctl.reach.curves.states import draw_targets, read_plan, read_states


def check_curve(recipe: CurveRecipe) -> None:
    """Find mistakes before a run's folder is made.

    Raises:
        UserError: The model, an adapter or a file is missing, there are too few states, or no token is
            left for a control.
    """
    for source in recipe.beside:
        known_curve(source)
    check_settings(recipe, recipe.model, recipe.adapter)


def check_settings(recipe: CurveSettings, model: str, adapter: Any) -> None:
    """The same for one model of a comparison; see `check_curve`."""
    from llmctl.models.loading import load_tokenizer  # imports torch, which an estimate can do without

    resolve(model, with_code=recipe.load.trust_remote_code)
    check_adapter(adapter)
    tokenizer = load_tokenizer(model, trust_remote_code=recipe.load.trust_remote_code)
    problem_template(recipe.controls, recipe.search.seed, tokenizer, len(tokenizer))
    if recipe.states.pairs is not None:
        read_plan(recipe.states.pairs, tokenizer, recipe.states.count)
        return
    for state in read_states(recipe.states, tokenizer):
        if recipe.targets.draw == "next":
            draw_targets(state, recipe.targets, len(tokenizer), None)


def estimate_work(recipe: CurveSettings) -> dict[str, Any]:
    """An upper bound on the work of a run; for `--dry-run`."""
    each = 1 if recipe.targets.draw == "next" else recipe.targets.count
    states: int | str = recipe.states.count or "all states of the file"
    forwards: int | str = planned_forwards(recipe.search) or "whole scans of the vocabulary"
    return {
        "states": states,
        "targets per state": each,
        "controls scored per pair, at most": forwards,
        "random controls at equal cost": "yes" if recipe.baseline == "random" else "no",
        "longest control": recipe.max_k,
    }
