"""Plots of a RISE report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.rise.metric_names import MetricNames
from llmctl.runs import new_figure

_COLOURS = {"before": "#8a8a8a", "after": "#1f6fb4"}
_FLOW_COLOURS = {
    "right_to_right": ("#1f6fb4", "right, right"),
    "wrong_to_right": ("#59a869", "wrong, right"),
    "right_to_wrong": ("#d1495b", "right, wrong"),
    "wrong_to_wrong": ("#c8c8c8", "wrong, wrong"),
}


def draw_accuracy(metrics: Mapping[str, Any], names: MetricNames) -> Any:
    """Accuracy of each turn before and after, with the parallel vote as a dotted line."""
    figure = new_figure()
    axes = figure.subplots()
    for stage, colour in _COLOURS.items():
        if stage not in metrics:
            continue
        turns = metrics[stage]["turns"]
        places = [turn["turn"] for turn in turns]
        values = [turn["accuracy"].value for turn in turns]
        below = [t["accuracy"].value - t["accuracy"].low for t in turns]
        above = [t["accuracy"].high - t["accuracy"].value for t in turns]
        axes.errorbar(places, values, (below, above), marker="o", capsize=3, color=colour, label=stage)
        axes.axhline(
            names.find(metrics[stage], "parallel_vote").value, color=colour, linestyle=":", linewidth=1
        )
    axes.set(xlabel="turn", ylabel="accuracy of that turn alone", ylim=(0, 1), xticks=places)
    axes.set_title("dotted: vote of the parallel samples", fontsize=9)
    axes.legend(frameon=False)
    return figure


def draw_flows(metrics: Mapping[str, Any]) -> Any:
    """Stacked bars of how the answers changed from each turn to the next."""
    stages = [stage for stage in _COLOURS if stage in metrics]
    figure = new_figure()
    for axes, stage in zip(
        figure.subplots(1, len(stages), sharey=True, squeeze=False)[0], stages, strict=True
    ):
        turns = metrics[stage]["turns"][1:]
        base = [0] * len(turns)
        for name, (colour, label) in _FLOW_COLOURS.items():
            counts = [turn[name] for turn in turns]
            names = [f"{turn['turn'] - 1} to {turn['turn']}" for turn in turns]
            axes.bar(names, counts, bottom=base, color=colour, label=label)
            base = [a + b for a, b in zip(base, counts, strict=True)]
        axes.set(title=stage, xlabel="turns")
    figure.axes[0].set_ylabel("problems")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
