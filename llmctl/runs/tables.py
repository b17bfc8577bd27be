"""A table that is shown as Markdown, as HTML or on a terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.runs.stats import Estimate

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    Cells are text, numbers, booleans, None (shown as a dash) or `Estimate`. Markdown and HTML in text are
    escaped.

    Raises:
        ValueError: The number of cells in a row is not the number of columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse rows of different lengths."""
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} has {len(row)} cells, but there are {len(self.columns)} columns"
                )

    def to_markdown(self) -> str:
        """The table as GitHub renders it, with the caption in italics below."""
        marks = ["---:" if is_number else "---" for is_number in self._numeric()]
        lines = [[escape_markdown(column) for column in self.columns], marks]
        lines += [[escape_markdown(format_cell(cell)) for cell in row] for row in self.rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{text}\n\n*{escape_markdown(self.caption)}*" if self.caption else text

    def to_html(self) -> str:
        """A `<table>` in a box that scrolls horizontally, with all text escaped."""
        kinds = [' class="number"' if is_number else "" for is_number in self._numeric()]
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(column)}</th>'
            for kind, column in zip(kinds, self.columns, strict=True)
        )
        body = "\n".join(
            "<tr>"
            + "".join(
                f"<td{kind}>{html.escape(format_cell(cell))}</td>"
                for kind, cell in zip(kinds, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        table = f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        return f'<div class="table">{table}</div>'

    def to_rich(self) -> RichTable:
        """The table for `rich.console.Console.print`."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.caption) if self.caption else None, box=box.SIMPLE_HEAD)
        for column, is_number in zip(self.columns, self._numeric(), strict=True):
            table.add_column(Text(column), justify="right" if is_number else "left")
        for row in self.rows:
            table.add_row(*(Text(format_cell(cell)) for cell in row))
        return table

    def _numeric(self) -> list[bool]:
        """For each column, whether all its cells that are not None are numbers."""
        columns = [
            [row[place] for row in self.rows if row[place] is not None] for place in range(len(self.columns))
        ]
        return [bool(cells) and all(_is_number(cell) for cell in cells) for cells in columns]


def format_cell(cell: Any) -> str:
    """Format a cell: 4 significant digits for a float, an estimate with its interval, a dash for None."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def escape_markdown(text: str) -> str:
    """Escape text so that every Markdown renderer shows it as plain text on one line."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*<>\[\]|~&#])|((?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))", r"\\\1\2", one_line)


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float, Estimate)) and not isinstance(cell, bool)
