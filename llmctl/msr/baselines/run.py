"""Run the baselines of a recipe on a run's candidate lists; finished ones are not run again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmctl.msr.baselines.base import Baseline, ItemIndex
from llmctl.msr.baselines.registry import BASELINES
from llmctl.msr.data.prepared import PreparedData
from llmctl.msr.evaluation.metrics import RankCounts, rank_target
from llmctl.msr.evaluation.scores import (
    ModelScores,
    combine_scores,
    is_recorded,
    record_scores,
    update_metrics,
)
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.types import Item
from llmctl.runs import Run, progress


def make_baseline(name: str, items: Sequence[Item], recipe: MsrRecipe) -> Baseline:
    """An unfitted baseline.

    Args:
        name: A name in the registry of baselines.
        items: The catalogue.
        recipe: Holds its settings and the seed.

    Raises:
        UserError: There is no such baseline.
    """
    return BASELINES[name].factory(items, recipe.baselines.section(name), recipe.seed)


def run_baselines(
    run: Run, recipe: MsrRecipe, prepared: PreparedData, *, quiet: bool = False
) -> dict[str, Any]:
    """Fit and score those baselines of the recipe that have no scores yet.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        prepared: The run's data.
        quiet: Show no progress.

    Returns:
        The metrics by baseline, in the layout of `metrics.json`.

    Raises:
        UserError: A package that a baseline needs is not installed; raised before any baseline is fitted.
    """
    missing = [name for name in recipe.baselines.names if not is_recorded(run, name)]
    for name in missing:
        BASELINES[name].check()
    items = list(prepared.items()) if missing else []
    for name in missing:
        scores = evaluate_baseline(name, items, recipe, prepared, quiet=quiet)
        record_scores(run, prepared, scores, recipe.seed)
    combine_scores(run)
    metrics = update_metrics(run)
    return {name: metrics[name] for name in recipe.baselines.names}


def evaluate_baseline(
    name: str, items: Sequence[Item], recipe: MsrRecipe, prepared: PreparedData, *, quiet: bool = False
) -> ModelScores:
    """Fit a baseline on the training users, and score the candidates of the test users."""
    baseline, index = make_baseline(name, items, recipe), ItemIndex(items)
    start = time.perf_counter()
    baseline.fit(prepared.sequences("train"))
    fitted = time.perf_counter()
    scores, full = [], []
    with progress(prepared.users("test"), f"score {name}", "users", quiet=quiet) as bar:
        for history, candidates in prepared.cases("test"):
            values = baseline.score_items(history)
            scores.append(values[index.of_candidates(candidates)].astype(np.float64))
            if recipe.baselines.full_ranking:
                is_ranked = np.ones((1, len(values)), bool)
                is_ranked[0, index.of_history(history)] = False
                target = values[[index[candidates.target]]]
                full.append(rank_target(values[None], target, is_ranked))
            bar.advance()
    facts = {
        "fit_seconds": round(fitted - start, 2),
        "score_seconds": round(time.perf_counter() - fitted, 2),
    }
    return ModelScores(name, np.stack(scores), RankCounts.join(full) if full else None, facts)
