"""The work of a recipe, for `--dry-run`."""

from __future__ import annotations

import math
from typing import Any

from llmctl.training.config import TrainSettings
from llmctl.training.data.sources import get_rows
from llmctl.training.recipe import SftRecipe


def estimate_sft(recipe: SftRecipe) -> dict[str, Any]:
    """Rows and steps; rows are read for it, and not tokenized."""
    rows = get_rows(recipe.data)
    found: dict[str, Any] = {"training rows": len(rows.training), "validation rows": len(rows.validation)}
    if recipe.data.block is None:
        found["steps on one device, at most"] = count_steps(recipe.train, len(rows.training))
    return found


def count_steps(settings: TrainSettings, rows: int) -> int:
    """Optimizer steps of one process on that many rows."""
    if settings.max_steps is not None:
        return settings.max_steps
    return math.ceil(settings.epochs * math.ceil(rows / (settings.batch_size * settings.accumulation)))
