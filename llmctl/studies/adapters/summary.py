"""From finished units to metrics: values by seed with mean and interval, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from llmctl.runs import Estimate, Run, bootstrap_ratio, student_mean
from llmctl.studies.adapters.arm_kinds import arm_pairs
from llmctl.studies.adapters.arms import Arm, mismatch
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.unit_result import UnitResult
from llmctl.studies.adapters.units import SEARCH, is_searching, read_units, unit_key
from llmctl.training.data.sources import Rows
from llmctl.training.result import perplexity

_UNITS = {"seconds_per_step": "s, median over steps", "peak_memory": "MiB", "losses": "nats per token"}

METRICS: dict[str, Callable[[UnitResult], float | None]] = {
    "trainable_parameters": lambda unit: unit.trainable_parameters,
    "train_loss": lambda unit: unit.train_loss,
    "validation_loss": lambda unit: unit.validation_loss,
    "perplexity": lambda unit: perplexity(unit.validation_loss),
    "generalization_gap": lambda unit: unit.validation_loss - unit.train_loss,
    "accuracy": lambda unit: None if unit.accuracy is None else unit.accuracy.value,
    "seconds_per_step": lambda unit: unit.seconds_per_step,
    "peak_memory": lambda unit: unit.peak_memory,
}


def summarize(
    run: Run, recipe: AdapterCompareRecipe, arms: Sequence[Arm], rates: Mapping[str, float], rows: Rows
) -> dict[str, Any]:
    """The content of `metrics.json`: one object per arm, then what was compared and how."""
    units = read_units(run)
    by_arm = {arm.name: {str(seed): units[unit_key(arm, seed)] for seed in recipe.seeds} for arm in arms}
    metrics: dict[str, Any] = {arm.name: _arm(arm, by_arm[arm.name], rates.get(arm.name)) for arm in arms}
    metrics["differences"] = [
        _difference(first, second, by_arm) for first, second in pairs(recipe, [arm.name for arm in arms])
    ]
    first = next(iter(by_arm[arms[-1].name].values()))
    metrics["comparison"] = {
        "arms": [arm.name for arm in arms],
        "seeds": list(recipe.seeds),
        "mismatch": mismatch(list(arms)),
        "budget": recipe.budget,
        "training_rows": None if first.training is None else first.training.rows,
        "dropped_rows": None if first.training is None else first.training.dropped_rows,
        "repeated_rows": rows.repeats,
        "validation_rows": len(first.validation.nll),
        "validation_tokens": sum(first.validation.tokens),
        "steps": None if first.training is None else first.training.steps,
        "units": _UNITS,
    }
    if is_searching(recipe):
        trials = {line["key"]: line["validation_loss"] for line in run.journal(SEARCH)}
        metrics["comparison"]["search"] = trials
    metrics["curves"] = {arm.name: _curves(by_arm[arm.name], recipe) for arm in arms}
    return metrics


def pairs(recipe: AdapterCompareRecipe, names: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are compared: (a, b) for a - b, the comparisons that matter most first."""
    if recipe.architectures is not None:
        return [(second, first) for first, second in combinations(names, 2)]
    return arm_pairs(names)


def _arm(arm: Arm, units: Mapping[str, UnitResult], rate: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"size": arm.size, "learning_rate": rate}
    for name, metric in METRICS.items():
        values = {seed: metric(unit) for seed, unit in units.items()}
        # A model that is not trained was measured once, and has no spread over seeds.
        known = [value for value in values.values() if value is not None]
        estimate = student_mean(known[:1] if arm.settings is None else known)
        found[name] = {"values": values, **estimate.to_dict()}
    return found


def _difference(first: str, second: str, by_arm: Mapping[str, Mapping[str, UnitResult]]) -> dict[str, Any]:
    """Validation loss of the first arm minus that of the second, in nats per token.

    Over seeds: each seed's difference is one value, which is what another training would change. Over rows:
    the differences of a row are averaged over seeds, which is what other validation rows would change.
    """
    one, other = by_arm[first], by_arm[second]
    values = {seed: one[seed].validation_loss - other[seed].validation_loss for seed in one}
    tokens = next(iter(one.values())).validation.tokens
    change = np.mean(
        [np.subtract(one[seed].validation.nll, other[seed].validation.nll) for seed in one],
        axis=0,
    )
    found = {
        "first": first,
        "second": second,
        "values": values,
        "over_seeds": student_mean(list(values.values())),
        "over_rows": bootstrap_ratio(change, tokens),
    }
    for name in ("seconds_per_step", "peak_memory"):
        found[f"{name}_ratio"] = _ratio(one, other, METRICS[name])
    return found


def _ratio(
    one: Mapping[str, UnitResult],
    other: Mapping[str, UnitResult],
    metric: Callable[[UnitResult], float | None],
) -> Estimate | None:
    values = [(metric(one[seed]), metric(other[seed])) for seed in one]
    ratios = [first / second for first, second in values if first and second]
    return student_mean(ratios) if ratios else None


def _curves(units: Mapping[str, UnitResult], recipe: AdapterCompareRecipe) -> dict[str, Any]:
    """Losses by seed: of each step, and on the first validation rows during training."""
    validation = {}
    for seed, unit in units.items():
        part, training = unit.validation.first(recipe.curve.rows), unit.training
        end = [0 if training is None else training.steps, sum(part.nll) / sum(part.tokens)]
        points = () if training is None else training.curve
        validation[seed] = [*([step, loss] for step, loss in points), end]
    losses = {seed: unit.training.losses if unit.training else () for seed, unit in units.items()}
    return {
        "training": {seed: list(values) for seed, values in losses.items()},
        "validation": validation,
    }
