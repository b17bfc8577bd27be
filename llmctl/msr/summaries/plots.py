"""Items of a report: each picture beside its title and its description."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.pictures import read_picture
from llmctl.runs import new_figure

_WIDTH, _MAX_LINES = 92, 6  # characters and lines of text beside a picture
_SHORT = 40  # characters of a text that leaves room for a second item in its row


@dataclass(frozen=True)
class DescribedItem:
    """An item as a report shows it."""

    title: str
    description: str
    image: str | None


def draw_items(items: Sequence[DescribedItem]) -> Any:
    """Pictures, each with its title and description; two items per row where all texts are short."""
    across = 2 if all(max(len(item.title), len(item.description)) <= _SHORT for item in items) else 1
    rows = math.ceil(len(items) / across)
    figure = new_figure(width=8, height=1.15 * rows)
    ratios = [1, 7 / across - 1] * across  # widths of a picture and its text
    grid = figure.subplots(rows, 2 * across, squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.axis("off")
    for (left, right), item in zip(grid.reshape(-1, 2), items, strict=False):
        _draw_item(left, right, item)
    return figure


def _draw_item(left: Any, right: Any, item: DescribedItem) -> None:
    picture = read_picture(item.image, max_side=160).image
    if picture is None:
        left.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=7)
    else:
        left.imshow(picture)
    lines = textwrap.wrap(item.description or "(no description)", _WIDTH)
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], lines[_MAX_LINES - 1] + " ..."]
    title = textwrap.shorten(item.title or "(no title)", _WIDTH)
    # parse_math=False: a dollar in a title is a dollar
    right.text(0, 0.95, title, va="top", fontsize=9, weight="bold", parse_math=False)
    right.text(0, 0.70, "\n".join(lines), va="top", fontsize=8, parse_math=False)
