"""Plots of reach reports."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.reach.curves.known import KnownCurve
from llmctl.reach.curves.records import CurvePair
from llmctl.reach.search.methods.registry import MethodStyle, style_of
from llmctl.runs import new_figure

OWN = "#1f6fb4"
RANDOM = "#8a8a8a"
_NOT_REACHED = MethodStyle("#000000", "+")
_OTHERS = ("#d1495b", "#59a869", "#e0a030", "#7b5ea7", "#3aa6a6", "#a0522d")


def draw_epsilon(metrics: Mapping[str, Any], others: Sequence[KnownCurve]) -> Any:
    """Epsilon by k with intervals, the random baseline, other curves, and bars of what solved them."""
    figure = new_figure(7.2, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for place, curve in enumerate(others):
        colour = _OTHERS[place % len(_OTHERS)]
        label = f"{curve.name}, n = {curve.n}"
        top.plot(curve.ks, curve.values, color=colour, marker=".", linewidth=1, alpha=0.8, label=label)
    if "baseline" in metrics:
        _line(top, metrics["baseline"]["epsilon"], RANDOM, "random controls, same cost", linestyle="--")
    n, states = metrics["pairs"], metrics["states"]
    label = f"{metrics['model']}, n = {n}" + (f" at {states} states" if states < n else "")
    _line(top, metrics["epsilon"], OWN, label)
    top.set(ylabel="epsilon: share of pairs not reached", ylim=(-0.02, 1.02))
    top.legend(frameon=False, fontsize=8)
    _method_bars(bottom, metrics)
    bottom.set(xlabel="k: control tokens at most", ylabel="newly reached")
    ticks = sorted({int(k) for k in metrics["epsilon"]} | {k for curve in others for k in curve.ks})
    bottom.set_xticks(ticks)
    return figure


def _line(
    axes: Any, points: Mapping[str, Mapping[str, float]], colour: str, label: str, **style: Any
) -> None:
    ks = sorted(points, key=int)
    places = [int(k) for k in ks]
    values = [points[k]["value"] for k in ks]
    below = [points[k]["value"] - points[k]["low"] for k in ks]
    above = [points[k]["high"] - points[k]["value"] for k in ks]
    axes.errorbar(places, values, (below, above), color=colour, marker="o", capsize=3, label=label, **style)


def _method_bars(axes: Any, metrics: Mapping[str, Any]) -> None:
    ks = sorted(metrics["epsilon"], key=int)
    methods = list(dict.fromkeys(m for k in ks for m in metrics["epsilon"][k]["methods"]))
    base = [0] * len(ks)
    for method in methods:
        counts = [metrics["epsilon"][k]["methods"].get(method, 0) for k in ks]
        colour = style_of(method).colour
        axes.bar([int(k) for k in ks], counts, bottom=base, width=0.6, color=colour, label=method)
        base = [a + b for a, b in zip(base, counts, strict=True)]
    if methods:
        axes.legend(frameon=False, fontsize=8, title="by", title_fontsize=8)


def draw_curves(curves: Sequence[KnownCurve]) -> Any:
    """Several curves with their intervals, epsilon by k."""
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    for place, curve in enumerate(curves):
        colour = (OWN, *_OTHERS)[place % (len(_OTHERS) + 1)]
        below = [v - low for v, low in zip(curve.values, curve.lows, strict=True)]
        above = [high - v for v, high in zip(curve.values, curve.highs, strict=True)]
        states = "" if curve.clusters is None else f" at {curve.clusters} states"
        axes.errorbar(
            curve.ks,
            curve.values,
            (below, above),
            color=colour,
            marker="o",
            capsize=3,
            label=f"{curve.name}, n = {curve.n}{states}",
        )
    axes.set(xlabel="k: control tokens at most", ylabel="epsilon: share of pairs not reached")
    axes.set(ylim=(-0.02, 1.02), xticks=sorted({k for curve in curves for k in curve.ks}))
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_tokens(metrics: Mapping[str, Any]) -> Any:
    """Epsilon by tokens spent per pair, so that curves of different methods compare at equal cost."""
    figure = new_figure()
    axes = figure.subplots()
    _line(axes, metrics["by_tokens"], OWN, metrics["model"])
    axes.set_xscale("log", base=2)
    axes.set(xlabel="budget: forward tokens per pair", ylabel="epsilon", ylim=(-0.02, 1.02))
    return figure


def draw_difficulty(pairs: Sequence[CurvePair]) -> Any:
    """Base rank and base loss of every pair against the k that reached it; not reached on the right."""
    figure = new_figure(8.0, 3.6)
    left, right = figure.subplots(1, 2)
    jitter = random.Random(0)
    longest = max((pair.result.k for pair in pairs if pair.result.k is not None), default=0)
    for method in dict.fromkeys(_solver(pair) for pair in pairs):
        chosen = [pair.result for pair in pairs if _solver(pair) == method and pair.base_loss is not None]
        places = [(longest + 1 if r.k is None else r.k) + jitter.uniform(-0.22, 0.22) for r in chosen]
        own = style_of(method) if method else _NOT_REACHED
        style = {
            "color": own.colour,
            "marker": own.marker,
            "label": method or "not reached",
            "s": 18,
            "alpha": 0.8,
        }
        left.scatter(places, [result.base_rank + 1 for result in chosen], **style)
        right.scatter(places, [result.base_loss for result in chosen], **style)
    left.set_yscale("log")
    left.set(xlabel="k", ylabel="base rank + 1")
    right.set(xlabel="k", ylabel="base loss, nats")
    for axes in (left, right):
        axes.set_xticks(range(longest + 2), [*map(str, range(longest + 1)), "none"])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _solver(pair: CurvePair) -> str:
    """The method that solved a pair; empty where none did."""
    return pair.result.method if pair.result.k is not None else ""


def draw_reached(found: Mapping[str, Any]) -> Any:
    """A reachable set: base rank against the length of the witness, and how the set grew."""
    figure = new_figure(8.0, 3.6)
    left, right = figure.subplots(1, 2)
    jitter = random.Random(0)
    reached = found["reached"]
    places = [len(r["control_ids"]) + jitter.uniform(-0.25, 0.25) for r in reached]
    left.scatter(places, [r["base_rank"] + 1 for r in reached], s=8, alpha=0.5, color=OWN)
    left.set_yscale("log")
    left.set_xticks(range(found["k"] + 1))
    left.set(xlabel="tokens of the witness", ylabel="base rank + 1", title=f"{len(reached):,} tokens reached")
    right.plot([g["forwards"] for g in found["growth"]], [g["reached"] for g in found["growth"]], color=OWN)
    right.set(xlabel="controls scored", ylabel="tokens reached")
    return figure


def draw_bound(report: Mapping[str, Any]) -> Any:
    """Layer by head: the least number of control tokens that the bound does not rule out."""
    figure = new_figure(6.4, 6.0)
    axes = figure.subplots()
    heads = report["heads"]
    layers, width = max(h["layer"] for h in heads) + 1, max(h["head"] for h in heads) + 1
    grid = [[math.nan] * width for _ in range(layers)]
    for head in heads:
        grid[head["layer"]][head["head"]] = math.log10(head["least_k"]) if head["least_k"] else math.inf
    finite = [value for row in grid for value in row if math.isfinite(value)]
    image = axes.imshow(grid, aspect="auto", vmin=0, vmax=max(1.0, *finite), cmap="viridis")
    figure.colorbar(image, label="log10 of the least k that is not ruled out")
    axes.set(xlabel="head", ylabel="layer", xticks=range(width))
    return figure
