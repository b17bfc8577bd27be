"""Curves for the page: finished runs, published curves, and the pairs behind a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.files.library import Library, reading
from llmctl.reach.curves.known import known_curve, published_names

_PUBLISHED = "published:"


def published() -> list[dict[str, Any]]:
    """Every published curve, ready to draw."""
    return [_drawn(f"{_PUBLISHED}{name}", known_curve(name), name) for name in published_names()]


def curve(library: Library, run: str) -> dict[str, Any]:
    """The curve of a finished run, with the random baseline where it has one.

    Raises:
        UserError: The run is no finished curve, or lies outside the runs folder.
    """
    metrics = library.metrics(run)
    try:
        recipe = dict(library.recipe(run))
    except UserError:
        recipe = {}
    epsilon = metrics.get("epsilon")
    if not isinstance(epsilon, dict) or not epsilon:
        raise UserError(f"{run} is no finished curve: choose a run of kind reach-curve")
    try:
        return _shown(library, run, metrics, recipe)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"metrics.json of {run} is not that of a curve: run it again") from error


def _shown(
    library: Library, run: str, metrics: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """A curve as the page draws it."""
    baseline = (metrics.get("baseline") or {}).get("epsilon")
    controls = recipe.get("controls") or {}
    return {
        "name": run,
        "label": run,
        "model": library.offer_name(metrics.get("model")),
        "adapter": library.offer_name(recipe.get("adapter")),
        "position": controls.get("position", "before") if isinstance(controls, dict) else "before",
        "targets": metrics.get("targets"),
        "seeds": metrics.get("seeds"),
        "verdicts": metrics.get("verdicts"),
        "pairs": metrics.get("pairs"),
        "states": metrics.get("states"),
        "points": _points(metrics["epsilon"]),
        "baseline": _points(baseline) if baseline else None,
        "is_published": False,
    }


def pairs(library: Library, run: str, k: int | None, offset: int, limit: int) -> dict[str, Any]:
    """A page of the pairs that exactly k tokens reached; None is those that were not reached.

    Raises:
        UserError: The run has no pairs, or lies outside the runs folder.
    """
    index = library.pairs(run)
    with reading(run):
        page = index.page(k, max(offset, 0), min(max(limit, 1), 200))
    keep = (
        "id state_text state_ids target_text target_ids control_text control_ids control_tokens k method "
        "verdict base_rank base_loss loss forwards roundtrips position"
    ).split()
    return {
        "run": run,
        "k": k,
        "offset": offset,
        "of": index.counts.get(k, 0),
        "total": index.total,
        "counts": {"none" if at is None else str(at): count for at, count in index.counts.items()},
        "pairs": [{key: pair.get(key) for key in keep} for pair in page],
    }


def _points(epsilon: dict[str, Any]) -> list[dict[str, Any]]:
    keep = ("value", "low", "high", "n", "clusters", "methods", "is_switch")
    rows = sorted((int(k), point) for k, point in epsilon.items())
    return [{"k": k, **{key: point[key] for key in keep if key in point}} for k, point in rows]


def _drawn(name: str, known: Any, label: str) -> dict[str, Any]:
    columns = zip(known.ks, known.values, known.lows, known.highs, strict=True)
    points = [
        {"k": k, "value": value, "low": low, "high": high, "n": known.n} for k, value, low, high in columns
    ]
    return {"name": name, "label": label, "points": points, "pairs": known.n, "is_published": True}
