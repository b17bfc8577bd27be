"""`llmctl doctor`: what is here, what is missing, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command(help="Say what is installed, which engine and model are used, and how to get what is missing.")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Exit with 1 where something that llmctl can not do without is missing or broken."""
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
            Table(["", "what", "found"], [[check.status, check.name, check.found] for check in checks])
        )
        for check in checks:
            if check.remedy:
                print_text(f"{check.name}: {check.remedy}")
        print_text(f"{len(troubles)} to mend" if troubles else "llmctl is ready")
    if troubles:
        raise typer.Exit(FAILED)
