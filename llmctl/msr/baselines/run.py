"""All baselines of a recipe on a run's frozen lists; those that are done are not done again."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from llmctl.msr.baselines.base import Baseline
from llmctl.msr.baselines.counting import ItemKNN, Popularity, Random
from llmctl.msr.baselines.sequence import Gru4Rec, SasRec, import_cornac
from llmctl.msr.baselines.text import TextKNN
from llmctl.msr.data.prepare import Prepared
from llmctl.msr.evaluation.metrics import RankCounts, place_target
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


def make_baseline(name: str, items: list[Item], recipe: MsrRecipe) -> Baseline:
    """An unfitted baseline.

    Args:
        name: One of `recipe.BASELINES`.
        items: The catalogue.
        recipe: Where its settings stand.
    """
    if name == "random":
        return Random(items, recipe.seed)
    if name == "gru4rec":
        return Gru4Rec(items, recipe.baselines.gru4rec, recipe.seed)
    if name == "sasrec":
        return SasRec(items, recipe.baselines.sasrec, recipe.seed)
    plain: dict[str, type[Popularity] | type[ItemKNN] | type[TextKNN]]
    plain = {"popularity": Popularity, "item-knn": ItemKNN, "text-knn": TextKNN}
    return plain[name](items)


def run_baselines(run: Run, recipe: MsrRecipe, prepared: Prepared, *, quiet: bool = False) -> dict[str, Any]:
    """Fit and score what is missing of the recipe's baselines.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        prepared: The run's data.
        quiet: No progress.

    Returns:
        The figures by baseline, as `metrics.json` has them.

    Raises:
        UserError: A package that a baseline needs is not installed; known before any is fitted.
    """
    missing = [name for name in recipe.baselines.names if not is_recorded(run, name)]
    if {"gru4rec", "sasrec"} & set(missing):
        import_cornac()
    items = list(prepared.items()) if missing else []
    for name in missing:
        found = evaluate_baseline(make_baseline(name, items, recipe), recipe, prepared, quiet=quiet)
        record_scores(run, prepared, found, recipe.seed)
    combine_scores(run)
    figures = update_metrics(run)
    return {name: figures[name] for name in recipe.baselines.names}


def evaluate_baseline(
    baseline: Baseline, recipe: MsrRecipe, prepared: Prepared, *, quiet: bool = False
) -> ModelScores:
    """Fit a baseline on the training users, and score the test users."""
    start = time.perf_counter()
    baseline.fit(prepared.sequences("train"))
    fitted = time.perf_counter()
    scores, full = [], []
    with progress(prepared.users("test"), f"score {baseline.name}", "users", quiet=quiet) as bar:
        for history, candidates in prepared.cases("test"):
            values = baseline.score_items(history)
            scores.append(values[baseline.candidate_places(candidates)].astype(np.float64))
            if recipe.baselines.full_ranking:
                is_ranked = np.ones((1, len(values)), bool)
                is_ranked[0, baseline.history_places(history)] = False
                target = values[[baseline.places[candidates.target]]]
                full.append(place_target(values[None], target, is_ranked))
            bar.advance()
    facts = {
        "fit_seconds": round(fitted - start, 2),
        "score_seconds": round(time.perf_counter() - fitted, 2),
    }
    return ModelScores(baseline.name, np.stack(scores), RankCounts.join(full) if full else None, facts)
