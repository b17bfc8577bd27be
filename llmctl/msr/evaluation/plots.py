"""Plots of a report: the AUC of every model, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.msr.evaluation.calibration import Calibration
from llmctl.runs import new_figure

_RECOMMENDER, _BASELINE, _LINE = "#1f6fb4", "#8a8a8a", "#c8c8c8"


def draw_auc(metrics: Mapping[str, Any], recommenders: Sequence[str], metric: str = "auc") -> Any:
    """A metric of every model with its interval, the best model on top.

    Args:
        metrics: By model, in the layout of `metrics.json`.
        recommenders: The models that are the run's recommenders; the others are baselines.
        metric: Which metric.
    """
    names = sorted(metrics, key=lambda name: metrics[name][metric]["value"])
    figure = new_figure(height=0.6 + 0.32 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        found = metrics[name][metric]
        value = found["value"]
        low, high = found["low"], found["high"]
        spread = None if low is None else ([value - low], [high - value])
        colour = _RECOMMENDER if name in recommenders else _BASELINE
        axes.errorbar([value], [row], xerr=spread, marker="o", capsize=3, color=colour)
    if metric == "auc":
        axes.axvline(0.5, color=_LINE, linestyle=":", zorder=0)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=metric.upper())
    return figure


def draw_calibration(fits: Mapping[str, Calibration]) -> Any:
    """Share that was chosen against the probability of yes, per model; a point's size is its count."""
    figure = new_figure(height=4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":", label="perfect calibration")
    for name, fit in fits.items():
        bins = [b for b in fit.bins if b.count]
        x, y = [b.probability or 0.0 for b in bins], [b.rate or 0.0 for b in bins]
        (line,) = axes.plot(x, y, linewidth=1, label=name)
        sizes = [12 + 120 * b.count / fit.n for b in bins]
        axes.scatter(x, y, s=sizes, color=line.get_color())
    axes.set(xlabel="probability of yes", ylabel="share that was chosen", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return figure
