"""The command line of llmctl: one thin module per command group."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: The words after "llmctl"; None takes those of the process.

    Raises:
        SystemExit: Always, with the exit code; see `llmctl.cli.failures`.
    """
    import typer.main

    from llmctl.cli.app import app

    command = typer.main.get_command(app)
    command.main(args=None if arguments is None else list(arguments), prog_name="llmctl")
