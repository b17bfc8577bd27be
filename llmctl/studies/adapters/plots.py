"""Plots of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.runs import new_figure
from llmctl.studies.adapters.verdict import label
from llmctl.training.sft_report import running_mean

COLOURS = ("#1f6fb4", "#d1495b", "#59a869", "#e0a030", "#7d5ba6")
LINES = ("-", "--", "-.", ":")  # arms may lie on one another
GREY = "#8a8a8a"


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour per arm; the base model is grey."""
    trained = [name for name in names if name != "base"]
    return {"base": GREY, **{name: COLOURS[n % len(COLOURS)] for n, name in enumerate(trained)}}


def draw_curves(metrics: Mapping[str, Any]) -> Any:
    """Training loss (running mean) and validation loss by step: mean over seeds, their range as a band."""
    names = [name for name in metrics["comparison"]["arms"] if name != "base"]
    figure = new_figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(names):
        style = {"linestyle": LINES[number % len(LINES)]}
        colour, curves = colours(metrics["comparison"]["arms"])[name], metrics["curves"][name]
        smooth = [running_mean(losses) for losses in curves["training"].values()]
        _band(left, range(1, len(smooth[0]) + 1), smooth, colour, label(name), **style)
        points = list(curves["validation"].values())
        marks = [step for step, _ in points[0]]
        _band(
            right,
            marks,
            [[loss for _, loss in line] for line in points],
            colour,
            label(name),
            marker="o",
            **style,
        )
    if "base" in metrics:
        base = metrics["curves"]["base"]["validation"]
        right.axhline(next(iter(base.values()))[-1][1], color=GREY, linestyle=":", label="base")
    left.set(xlabel="step", ylabel="loss, nats per token", title="training")
    right.set(xlabel="step", title="validation" + (", dotted: base" if "base" in metrics else ""))
    left.legend(frameon=False, fontsize=8)
    return figure


def draw_perplexity(metrics: Mapping[str, Any]) -> Any:
    """Validation perplexity: one small point per seed, and the mean with its interval beside them."""
    names = metrics["comparison"]["arms"]
    figure = new_figure()
    axes = figure.subplots()
    for place, name in enumerate(names):
        colour, found = colours(names)[name], metrics[name]["perplexity"]
        values = [value for value in found["values"].values() if value is not None]
        if not values:
            continue
        if found["low"] is not None:
            axes.plot([place - 0.12] * len(values), values, ".", color=colour, alpha=0.6)
            spread = ([found["value"] - found["low"]], [found["high"] - found["value"]])
            axes.errorbar([place], [found["value"]], spread, marker="s", capsize=4, color=colour)
        else:
            axes.plot([place], [found["value"]], "s", color=colour)
        axes.annotate(f"{found['value']:.3g}", (place + 0.06, found["value"]), fontsize=8, va="bottom")
    axes.set_xticks(range(len(names)), [label(name) for name in names])
    axes.set(ylabel="validation perplexity", xlim=(-0.5, len(names) - 0.3))
    return figure


def _band(
    axes: Any, steps: Sequence[int], lines: Sequence[Sequence[float]], colour: str, name: str, **style: Any
) -> None:
    """Mean of some lines, and the band between the lowest and the highest."""
    columns = list(zip(*lines, strict=True))
    axes.plot(steps, [sum(c) / len(c) for c in columns], color=colour, label=name, **style)
    axes.fill_between(
        steps, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.18, linewidth=0
    )
