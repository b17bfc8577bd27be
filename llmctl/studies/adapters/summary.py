"""From finished units to metrics: figures by seed with mean and interval, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from llmctl.runs import Estimate, Run, bootstrap_ratio, student_mean
from llmctl.studies.adapters.arm_kinds import arm_pairs
from llmctl.studies.adapters.arms import Arm, mismatch
from llmctl.studies.adapters.recipe import CompareRecipe
from llmctl.studies.adapters.units import SEARCH, is_searching, read_units, unit_key
from llmctl.training.result import perplexity
from llmctl.training.sources import Rows

Unit = Mapping[str, Any]

FIGURES: dict[str, Callable[[Unit], float | None]] = {
    "trainable_parameters": lambda unit: unit["trainable_parameters"],
    "train_loss": lambda unit: unit["train_loss"],
    "validation_loss": lambda unit: unit["validation_loss"],
    "perplexity": lambda unit: perplexity(unit["validation_loss"]),
    "generalization_gap": lambda unit: unit["validation_loss"] - unit["train_loss"],
    "accuracy": lambda unit: None if unit["accuracy"] is None else unit["accuracy"]["value"],
    "seconds_per_step": lambda unit: unit["seconds_per_step"],
    "peak_memory": lambda unit: unit["peak_memory"],
}


def summarize(
    run: Run, recipe: CompareRecipe, arms: Sequence[Arm], rates: Mapping[str, float], rows: Rows
) -> dict[str, Any]:
    """What `metrics.json` holds: one object an arm, then what was compared and how."""
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
        "training_rows": first.get("rows"),
        "dropped_rows": first.get("dropped_rows"),
        "repeated_rows": rows.repeats,
        "validation_rows": len(first["validation"]["nll"]),
        "validation_tokens": sum(first["validation"]["tokens"]),
        "steps": first.get("steps"),
        "units": {"seconds_per_step": "s, median over steps", "peak_memory": "MiB", "losses": "nats a token"},
    }
    if is_searching(recipe):
        trials = {line["key"]: line["validation_loss"] for line in run.journal(SEARCH)}
        metrics["comparison"]["search"] = trials
    metrics["curves"] = {arm.name: _curves(by_arm[arm.name], recipe) for arm in arms}
    return metrics


def pairs(recipe: CompareRecipe, names: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are set against which: (a, b) for a - b, the ones that matter most first."""
    if recipe.architectures is not None:
        return [(second, first) for first, second in combinations(names, 2)]
    return arm_pairs(names)


def _arm(arm: Arm, units: Mapping[str, Unit], rate: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"size": arm.size, "learning_rate": rate}
    for name, figure in FIGURES.items():
        values = {seed: figure(unit) for seed, unit in units.items()}
        # A model that is not trained was measured once, and has no spread over seeds.
        known = [value for value in values.values() if value is not None]
        estimate = student_mean(known[:1] if arm.settings is None else known)
        found[name] = {"values": values, **estimate.to_dict()}
    return found


def _difference(first: str, second: str, by_arm: Mapping[str, Mapping[str, Unit]]) -> dict[str, Any]:
    """Validation loss of the first arm minus that of the second, in nats a token.

    Over seeds: each seed's difference is one value, which is what another training would change. Over rows:
    the differences of a row are averaged over seeds, which is what other validation rows would change.
    """
    one, other = by_arm[first], by_arm[second]
    values = {seed: one[seed]["validation_loss"] - other[seed]["validation_loss"] for seed in one}
    tokens = next(iter(one.values()))["validation"]["tokens"]
    change = np.mean(
        [np.subtract(one[seed]["validation"]["nll"], other[seed]["validation"]["nll"]) for seed in one],
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
        found[f"{name}_ratio"] = _ratio(one, other, name)
    return found


def _ratio(one: Mapping[str, Unit], other: Mapping[str, Unit], name: str) -> Estimate | None:
    ratios = [one[seed][name] / other[seed][name] for seed in one if one[seed][name] and other[seed][name]]
    return student_mean(ratios) if ratios else None


def _curves(units: Mapping[str, Unit], recipe: CompareRecipe) -> dict[str, Any]:
    """Losses by seed: of every step, and on the first validation rows on the way."""
    validation = {}
    for seed, unit in units.items():
        part = {name: unit["validation"][name][: recipe.curve.rows] for name in ("nll", "tokens")}
        end = [unit.get("steps", 0), sum(part["nll"]) / sum(part["tokens"])]
        validation[seed] = [*unit.get("curve", []), end]
    return {
        "training": {seed: unit.get("losses", []) for seed, unit in units.items()},
        "validation": validation,
    }
