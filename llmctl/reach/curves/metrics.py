"""The `metrics.json` of a curve, from its pairs alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
from llmctl.runs import Estimate

Record = Mapping[str, Any]


def curve_metrics(
    recipe: CurveRecipe, pairs: Sequence[Record], baseline: Sequence[Record], seconds: float
) -> dict[str, Any]:
    """Everything that the report prints.

    Args:
        recipe: Resolved.
        pairs: Results as JSON objects, one a pair.
        baseline: The same pairs under random controls at equal cost; may be empty.
        seconds: Of search, loading aside.

    Returns:
        `curve.summarize`, and `by_tokens`, `by_length`, `baseline`, `errors`, `roundtrips`, `rechecks`.
    """
    found = [Pair.from_result(pair) for pair in pairs]
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
        "by_length": _by_length(pairs),
        "backward_tokens": sum(pair["backward_tokens"] for pair in pairs),
        "roundtrips": _share(pair["roundtrips"] for pair in pairs if pair["k"]),
        "rechecks": _rechecks(pairs),
        "errors": [{"id": pair["id"], "error": pair["error"]} for pair in pairs if pair["error"]],
        "seconds": round(seconds, 1),
    }
    metrics["frequent_tokens"] = _frequent(pairs)
    if baseline:
        metrics["baseline"] = _baseline(found, [Pair.from_result(pair) for pair in baseline], ks)
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
    """Epsilon by tokens spent on a pair, at powers of two up to the dearest pair."""
    most = max(pair.forward_tokens for pair in found)
    budgets = [2**power for power in range(4, max(5, math.ceil(math.log2(max(most, 1))) + 1))]
    return _by_place(epsilon_by_tokens(found, budgets))


def _by_place(points: Sequence[Point]) -> dict[str, Any]:
    """Points by k or by tokens, as plain values."""
    return {str(p.at): Estimate(p.value, p.low, p.high, p.n, p.clusters).to_dict() for p in points}


def _by_length(pairs: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Pairs and reached pairs by tokens of the state."""
    counts = Counter(len(pair["state_ids"]) for pair in pairs)
    reached = Counter(len(pair["state_ids"]) for pair in pairs if pair["k"] is not None)
    return {str(length): {"pairs": counts[length], "reached": reached[length]} for length in sorted(counts)}


def _share(values: Any) -> dict[str, int]:
    marks = list(values)
    return {"yes": sum(marks), "of": len(marks)}


def _frequent(pairs: Sequence[Record]) -> list[dict[str, Any]]:
    """The control tokens that most pairs' witnesses hold; each pair counts a token once."""
    counts: Counter[tuple[int, str]] = Counter()
    for pair in pairs:
        if pair["k"]:
            counts.update(set(zip(pair["control_ids"], pair["control_tokens"], strict=True)))
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    return [{"token": token, "text": text, "pairs": count} for (token, text), count in common]


def _rechecks(pairs: Sequence[Record]) -> dict[str, dict[str, int]]:
    """By place: how many witnesses were asked again there, and how many held."""
    found: dict[str, dict[str, int]] = {}
    for pair in pairs:
        for place, holds in (pair.get("rechecks") or {}).items():
            entry = found.setdefault(place, {"holds": 0, "of": 0})
            entry["of"] += 1
            entry["holds"] += bool(holds)
    return found
