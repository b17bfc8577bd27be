"""The `metrics.json` of a curve, from its pairs alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from llmctl.reach.curves.epsilon import (
    Pair,
    Point,
    epsilon_by_tokens,
    epsilon_curve,
    epsilon_difference,
    summarize,
)
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.records import CurvePair
from llmctl.reach.result import Result
from llmctl.runs import Estimate


def curve_metrics(
    recipe: CurveRecipe, pairs: Sequence[CurvePair], baseline: Sequence[Pair], seconds: float
) -> dict[str, Any]:
    """Everything that the report prints.

    Args:
        recipe: Resolved.
        pairs: All pairs, solved or not.
        baseline: The same pairs under random controls at equal cost; may be empty.
        seconds: Seconds spent searching, without loading.

    Returns:
        `epsilon.summarize`, and `by_tokens`, `by_length`, `baseline`, `errors`, `roundtrips`, `rechecks`.
    """
    found = [pair.pair() for pair in pairs]
    results = [pair.result for pair in pairs]
    ks = recipe.ks
    metrics: dict[str, Any] = {
        "model": recipe.model,
        "targets": recipe.targets.draw,
        "seeds": {
            "states": recipe.states.seed,
            "targets": recipe.targets.seed,
            "search": recipe.search.seed,
        },
        **summarize(found, ks),
        "by_tokens": _by_tokens(found),
        "by_length": _by_length(results),
        "backward_tokens": sum(result.backward_tokens for result in results),
        "roundtrips": _share(result.roundtrips for result in results if result.k),
        "rechecks": _rechecks(pairs),
        "errors": [{"id": result.id, "error": result.error} for result in results if result.error],
        "seconds": round(seconds, 1),
    }
    metrics["frequent_tokens"] = _frequent(pairs)
    if baseline:
        metrics["baseline"] = _baseline(found, baseline, ks)
    return metrics


def _baseline(found: Sequence[Pair], random: Sequence[Pair], ks: Sequence[int]) -> dict[str, Any]:
    difference: Estimate | None = None
    if len({pair.state for pair in found}) > 1:
        paired = epsilon_difference(random, found, max(ks))
        difference = Estimate(paired.value, paired.low, paired.high, len(found))
    return {
        "method": "random controls, as many tokens through the model as the search of the same pair",
        "epsilon": _by_place(epsilon_curve(random, ks)),
        "forward_tokens": sum(pair.forward_tokens for pair in random),
        "search_minus_random": difference,
    }


def _by_tokens(found: Sequence[Pair]) -> dict[str, Any]:
    """Epsilon by tokens spent per pair, at powers of two up to the most expensive pair."""
    most = max(pair.forward_tokens for pair in found)
    budgets = [2**power for power in range(4, max(5, math.ceil(math.log2(max(most, 1))) + 1))]
    return _by_place(epsilon_by_tokens(found, budgets))


def _by_place(points: Sequence[Point]) -> dict[str, Any]:
    """Points by k or by tokens, as plain values."""
    return {str(p.at): p.estimate().to_dict() for p in points}


def _by_length(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Pairs and reached pairs by tokens of the state."""
    counts = Counter(len(result.state_ids) for result in results)
    reached = Counter(len(result.state_ids) for result in results if result.k is not None)
    return {str(length): {"pairs": counts[length], "reached": reached[length]} for length in sorted(counts)}


def _share(values: Iterable[bool]) -> dict[str, int]:
    marks = list(values)
    return {"yes": sum(marks), "of": len(marks)}


def _frequent(pairs: Sequence[CurvePair]) -> list[dict[str, Any]]:
    """The control tokens that most pairs' witnesses hold; each pair counts a token once."""
    counts: Counter[tuple[int, str]] = Counter()
    for pair in pairs:
        if pair.result.k:
            counts.update(set(zip(pair.result.control_ids, pair.control_tokens, strict=True)))
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    return [{"token": token, "text": text, "pairs": count} for (token, text), count in common]


def _rechecks(pairs: Sequence[CurvePair]) -> dict[str, dict[str, int]]:
    """By place: how many witnesses were checked again there, and how many held."""
    found: dict[str, dict[str, int]] = {}
    for pair in pairs:
        for place, holds in pair.rechecks.items():
            entry = found.setdefault(place, {"holds": 0, "of": 0})
            entry["of"] += 1
            entry["holds"] += bool(holds)
    return found
