"""Differences between two models on the same users, and the sentence that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.msr.data.prepared import PreparedData
from llmctl.msr.evaluation.calibration import Calibration, calibrate
from llmctl.msr.evaluation.metrics import compare
from llmctl.msr.evaluation.scores import is_recorded, user_values
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.scoring import read_scores
from llmctl.runs import Estimate, Run

DECISIVE = "auc"  # the metric that decides a claim: it uses the whole list of every user


@dataclass(frozen=True)
class ModelComparison:
    """First minus second, metric by metric, with paired intervals over users."""

    claim: str
    first: str
    second: str
    differences: Mapping[str, Estimate]

    @property
    def sentence(self) -> str:
        """Whether the claim is shown, with the numbers behind it."""
        d = self.differences[DECISIVE]
        names = f"{self.first} against {self.second}"
        if d.value is None or d.low is None or d.high is None:
            return f"Not decided: {self.claim} ({names}): one user has no interval."
        numbers = f"AUC {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], {d.n:,} users"
        if d.low > 0:
            return f"Shown: {self.claim} ({names}: {numbers})."
        if d.high < 0:
            return f"The opposite is shown of: {self.claim} ({names}: {numbers})."
        return f"Not shown: {self.claim} ({names}: {numbers}); the interval contains 0."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {"claim": self.claim, "first": self.first, "second": self.second, "sentence": self.sentence}
        return {**plain, "differences": {name: e.to_dict() for name, e in self.differences.items()}}


def find_comparisons(run: Run, recipe: MsrRecipe, prepared: PreparedData) -> list[ModelComparison]:
    """Compare the pairs of the recipe's claims, then tuned and untuned model of every arm.

    Pairs with a model that is not evaluated yet are left out.
    """
    pairs = dict(recipe.claims)
    for arm in recipe.resolved_arms:
        if len(arm.models) == 2:
            untuned, tuned = arm.models
            if (tuned, untuned) not in pairs.values():
                pairs[f"tuning betters {arm.name}"] = (tuned, untuned)
    found = []
    for claim, (first, second) in pairs.items():
        if is_recorded(run, first) and is_recorded(run, second):
            one, other = (user_values(run, prepared, name) for name in (first, second))
            found.append(ModelComparison(claim, first, second, compare(one, other, recipe.seed)))
    return found


def calibrations(run: Run, recipe: MsrRecipe, prepared: PreparedData) -> dict[str, Calibration]:
    """The calibration of each model's probability of yes on the candidate lists."""
    labels = [lists.labels for _, lists in prepared.cases("test")]
    models = [model for arm in recipe.resolved_arms for model in arm.models if is_recorded(run, model)]
    return {model: calibrate(read_scores(run, model)[0], labels) for model in models}
