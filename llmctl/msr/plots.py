"""Figures of a report: AUC of every model, calibration, and items beside what is said of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.msr.evaluation.calibration import Calibration
from llmctl.pictures import read_picture
from llmctl.runs import new_figure

_OWN, _OTHERS, _LINE = "#1f6fb4", "#8a8a8a", "#c8c8c8"
_WIDTH, _MAX_LINES = 92, 6  # of text beside a picture
_SHORT = 40  # characters of a text that leaves room for another picture in its row


@dataclass(frozen=True)
class Shown:
    """An item as a report shows it."""

    title: str
    said: str
    image: str | None


def draw_auc(metrics: Mapping[str, Any], own: Sequence[str], metric: str = "auc") -> Any:
    """A metric of every model with its interval, the best one on top.

    Args:
        metrics: Figures by model.
        own: The models that are the run's recommenders; the others are baselines.
        metric: Which.
    """
    names = sorted(metrics, key=lambda name: metrics[name][metric]["value"])
    figure = new_figure(height=0.6 + 0.32 * len(names))
    axes = figure.subplots()
    for place, name in enumerate(names):
        found = metrics[name][metric]
        value = found["value"]
        low, high = found["low"], found["high"]
        spread = None if low is None else ([value - low], [high - value])
        colour = _OWN if name in own else _OTHERS
        axes.errorbar([value], [place], xerr=spread, marker="o", capsize=3, color=colour)
    if metric == "auc":
        axes.axvline(0.5, color=_LINE, linestyle=":", zorder=0)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=metric.upper())
    return figure


def draw_calibration(fits: Mapping[str, Calibration]) -> Any:
    """Share that came true against the probability of yes, for every model; a point's size is its count."""
    figure = new_figure(height=4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":", label="as it should be")
    for name, fit in fits.items():
        bins = [b for b in fit.bins if b.count]
        x, y = [b.probability or 0.0 for b in bins], [b.rate or 0.0 for b in bins]
        (line,) = axes.plot(x, y, linewidth=1, label=name)
        sizes = [12 + 120 * b.count / fit.n for b in bins]
        axes.scatter(x, y, s=sizes, color=line.get_color())
    axes.set(xlabel="probability of yes", ylabel="share that was chosen", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_items(items: Sequence[Shown]) -> Any:
    """Pictures, each with its title and what is said of it; two in a row where all texts are short."""
    across = 2 if all(max(len(item.title), len(item.said)) <= _SHORT for item in items) else 1
    rows = math.ceil(len(items) / across)
    figure = new_figure(width=8, height=1.15 * rows)
    ratios = [1, 7 / across - 1] * across  # of a picture and its text
    grid = figure.subplots(rows, 2 * across, squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.axis("off")
    for (left, right), item in zip(grid.reshape(-1, 2), items, strict=False):
        _draw_item(left, right, item)
    return figure


def _draw_item(left: Any, right: Any, item: Shown) -> None:
    picture = read_picture(item.image, max_side=160).image
    if picture is None:
        left.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=7)
    else:
        left.imshow(picture)
    lines = textwrap.wrap(item.said or "(nothing is said of it)", _WIDTH)
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], lines[_MAX_LINES - 1] + " ..."]
    title = textwrap.shorten(item.title or "(no title)", _WIDTH)
    # parse_math=False: a dollar in a title is a dollar
    right.text(0, 0.95, title, va="top", fontsize=9, weight="bold", parse_math=False)
    right.text(0, 0.70, "\n".join(lines), va="top", fontsize=8, parse_math=False)
