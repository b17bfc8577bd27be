"""How much work a recipe means, before any of it is done; and the name of the journal of finished phases."""

from __future__ import annotations

from typing import Any

from llmctl.rise.recipe import RiseRecipe

FINISHED = "finished"  # journal with one line per finished phase


def estimate_work(recipe: RiseRecipe) -> dict[str, Any]:
    """Upper bounds of what a run asks for, in samples, tokens and rows; for `--dry-run`."""
    c, e = recipe.collect, recipe.evaluate
    evaluations = 2 + (recipe.iterations - 1 if e.each_iteration else 0) if recipe.iterations else 1
    per_evaluation = e.problems * (e.parallel + e.turns - 1)
    per_collection = c.problems * c.turns * (c.samples + (c.teacher.samples if c.teacher else 0))
    tokens = evaluations * per_evaluation * recipe.evaluation_sampling.max_tokens
    tokens += recipe.iterations * per_collection * recipe.sampling.max_tokens
    return {
        "evaluations": evaluations,
        "samples per evaluation, at most": per_evaluation,
        "samples per collection, at most": per_collection,
        "new tokens sampled, at most": tokens,
        "training rows per iteration, at most": c.problems * c.turns,
        "epochs over these rows": recipe.train.epochs,
    }
