"""Printing: JSON for programs, tables and plain text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from llmctl.runs.spec import Shown
    from llmctl.runs.tables import Table

PIPE_WIDTH = 120  # columns


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    from llmctl.runs.files import to_json

    typer.echo(to_json(value, indent=2))


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    import sys

    from rich.console import Console

    # A pipe or a log has no width of its own, and 80 columns break intervals in two.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width, soft_wrap=False, highlight=False).print(table.to_rich())


def print_text(text: str) -> None:
    """Print text on stdout; characters that the terminal cannot show become question marks."""
    import sys

    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, errors="replace").decode(encoding))


def print_shown(blocks: Shown) -> None:
    """Print what a run shows: tables and lines of text, in order."""
    for block in blocks:
        if isinstance(block, str):
            print_text(block)
        else:
            print_table(block)
