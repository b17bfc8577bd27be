"""How much work a recipe means, before any of it is done; for `--dry-run`."""

from __future__ import annotations

import math
from typing import Any

from llmctl.msr.recipe import MsrRecipe


def estimate_work(recipe: MsrRecipe) -> dict[str, Any]:
    """What a run will ask for, as far as the recipe tells; users and items are known when data is read."""
    arms = recipe.resolved_arms
    found: dict[str, Any] = {"arms": ", ".join(arm.name for arm in arms)}
    if recipe.items.vlm and any(arm.reads_descriptions for arm in arms):
        found["new tokens an item, at most"] = recipe.items.max_tokens
    for arm in arms:
        if arm.users.mode == "recurrent":
            reads = f"a block of {arm.users.block} items"
        else:
            reads = "a user"
        if arm.users.mode != "none" and recipe.summaries_of(arm) == f"users-{arm.name}":
            found[f"{arm.name}: new tokens {reads}, at most"] = arm.users.max_tokens
        r = arm.recommender
        if r.train is not None:
            users = "all" if r.train_users is None else f"{r.train_users:,}"
            rows = math.ceil(r.train.epochs) * (1 + r.negatives_per_positive)
            found[f"{arm.name}: training users"] = users
            found[f"{arm.name}: rows a training user"] = rows
    models = [model for arm in arms for model in arm.models]
    found["models evaluated"] = ", ".join(models)
    found["candidates a test user and model"] = recipe.candidates.negatives + 1
    found["test users, at most"] = recipe.split.max_test or "all"
    found["baselines"] = len(recipe.baselines.names)
    return found
