"""The results of a comparison in sentences, whichever way they came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmctl.runs import Estimate
from llmctl.studies.adapters.arm_kinds import BASE, arm_title
from llmctl.studies.adapters.recipe import AdapterCompareRecipe


def label(name: str) -> str:
    """An arm's name in reports; architectures keep theirs."""
    return arm_title(name)


def verdicts(recipe: AdapterCompareRecipe, metrics: Mapping[str, Any]) -> list[str]:
    """Sentences for the report."""
    said = [_difference(found) for found in metrics["differences"]]
    said += [_cost(found) for found in metrics["differences"] if found["second"] == recipe.reference]
    said += [_gap(metrics), _sizes(metrics), _rates(recipe, metrics)]
    seeds = len(recipe.seeds)
    if seeds == 1:
        said.append("There is one seed, so nothing is known of the spread between trainings.")
    if metrics["comparison"]["dropped_rows"]:
        said.append(f"{metrics['comparison']['dropped_rows']} training rows were too long and left out.")
    if metrics["comparison"]["repeated_rows"]:
        said.append(
            f"{metrics['comparison']['repeated_rows']} training rows repeat a validation row; left out."
        )
    return [sentence for sentence in said if sentence]


def direction(found: Mapping[str, Any]) -> int:
    """-1 where the first arm's loss is lower beyond doubt of seeds and of rows, 1 higher, 0 undecided."""
    signs = {_sign(found["over_seeds"]), _sign(found["over_rows"])}
    return signs.pop() if len(signs) == 1 else 0


def _sign(figure: Estimate) -> int:
    if figure.low is None or figure.high is None:
        return 0
    return -1 if figure.high < 0 else 1 if figure.low > 0 else 0


def _difference(found: Mapping[str, Any]) -> str:
    first, second = label(found["first"]), label(found["second"])
    seeds, rows = found["over_seeds"], found["over_rows"]
    text = (
        f"{first} minus {second}: validation loss {_show(seeds)} over seeds, {_bounds(rows)} over rows "
        f"(perplexity {100 * math.expm1(seeds.value or 0.0):+.1f} %)."
    )
    way = direction(found)
    if way:
        return f"{text} {first} predicts held-out rows {'better' if way < 0 else 'worse'} than {second}."
    if seeds.low is None:
        return f"{text} One seed has no interval, so this decides nothing."
    if _sign(seeds) or _sign(rows):
        missing = "over rows" if _sign(seeds) else "over seeds"
        return f"{text} The interval {missing} does not exclude zero, so this decides nothing."
    return f"{text} Neither interval excludes zero: no difference is shown between {first} and {second}."


def _cost(found: Mapping[str, Any]) -> str:
    parts = []
    for name, words in (("seconds_per_step", "time per step"), ("peak_memory", "peak memory")):
        ratio = found[f"{name}_ratio"]
        if ratio is not None:
            parts.append(f"{ratio.value:.2f} times the {words}{_bounds(ratio, '.2f', ' ')}")
    if not parts:
        return ""
    return f"{label(found['first'])} takes {' and '.join(parts)} of {label(found['second'])}."


def _gap(metrics: Mapping[str, Any]) -> str:
    gaps = {name: metrics[name]["generalization_gap"]["value"] for name in metrics["comparison"]["arms"]}
    listed = ", ".join(f"{label(name)} {gap:+.3f}" for name, gap in gaps.items())
    text = f"Generalization gap (validation minus training loss, both after training): {listed}."
    return f"{text} That of base is how much harder the validation rows are." if BASE in gaps else text


def _sizes(metrics: Mapping[str, Any]) -> str:
    share = 100 * metrics["comparison"]["mismatch"]
    sizes = ", ".join(
        f"{label(name)} {metrics[name]['size']} ({metrics[name]['trainable_parameters']['value']:,.0f})"
        for name in metrics["comparison"]["arms"]
        if name != BASE
    )
    return f"Trained parameters differ by {share:.2f} % at most: {sizes}."


def _rates(recipe: AdapterCompareRecipe, metrics: Mapping[str, Any]) -> str:
    rates = {
        label(name): metrics[name]["learning_rate"]
        for name in metrics["comparison"]["arms"]
        if metrics[name]["learning_rate"] is not None
    }
    if "search" in metrics["comparison"]:
        chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        tried = ", ".join(f"{rate:g}" for rate in recipe.search.rates)
        return (
            f"Learning rates were chosen for each arm among {tried}, by the loss on {recipe.search.rows} "
            f"training rows apart and a seed of its own: {chosen}."
        )
    if not rates:
        return ""
    return (
        f"All arms train with the learning rate {next(iter(rates.values())):g}, which was not tuned for any "
        "of them; search.rates lets each choose its own."
    )


def _show(figure: Estimate, form: str = "+.4f") -> str:
    return f"{figure.value or 0.0:{form}}{_bounds(figure, form, ' ')}"


def _bounds(figure: Estimate, form: str = "+.4f", before: str = "") -> str:
    if figure.low is None or figure.high is None:
        return f"{before}(no interval)"
    return f"{before}[{figure.low:{form}}, {figure.high:{form}}]"
