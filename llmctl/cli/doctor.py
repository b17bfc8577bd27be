"""`llmctl doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    help="Check the installation: packages, GPU, engine and default model, and how to get what is missing."
)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Exit with code 1 if something required is missing or broken."""
    from llmctl.cli.checks import Status, check_all
    from llmctl.cli.failures import FAILED
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.runs.tables import Table

    checks = check_all()
    troubles = [check for check in checks if check.status in (Status.MISSING, Status.BROKEN)]
    if as_json:
        print_json({"is_ready": not troubles, "checks": [check.to_dict() for check in checks]})
    else:
        print_table(
            Table(["status", "check", "found"], [[check.status, check.name, check.found] for check in checks])
        )
        for check in checks:
            if check.remedy:
                print_text(f"{check.name}: {check.remedy}")
        print_text(f"{len(troubles)} problems to fix" if troubles else "llmctl is ready")
    if troubles:
        raise typer.Exit(FAILED)
