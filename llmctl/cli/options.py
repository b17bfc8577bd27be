"""Options that the commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="The recipe: a name such as rise/default, or the path of a YAML file.",
        show_default=False,
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="Folder of the run.", show_default="runs/<recipe name>"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a recipe key, e.g. sampling.n=8. Can be repeated."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document, without progress.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved recipe and an estimate of the work, and run nothing."),
]
FreshOption = Annotated[
    bool,
    typer.Option("--fresh", help="Delete the earlier results in the run's folder and start over."),
]


def _allow_code(is_allowed: bool) -> bool:
    if is_allowed:
        from llmctl.trust.code import allow_code

        allow_code()
    return is_allowed


def _allow_hosts(hosts: list[str] | None) -> list[str] | None:
    for host in hosts or ():
        from llmctl.trust.keys import allow_host

        allow_host(host)
    return hosts


# Both act where they are parsed, so that a command needs only to declare them.
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run code that is not llmctl's: tasks named python:..., and model code that comes with weights.",
        callback=_allow_code,
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="HOST",
        help="Send OPENAI_API_KEY to this server, where a recipe names it. Can be repeated.",
        callback=_allow_hosts,
    ),
]


def parse_options(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Parse options such as `--set min_terms=2` of commands without a recipe; values are read as YAML.

    Raises:
        UserError: An option is not of the form name=value, or its value is broken YAML.
    """
    from llmctl.errors import UserError
    from llmctl.runs.yaml_text import BrokenYamlError, parse_yaml

    options = {}
    for assignment in assignments or ():
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UserError(f"--set {assignment!r} is not of the form option=value, e.g. --set size=100")
        try:
            options[key.strip()] = parse_yaml(text, f"--set {key.strip()}")
        except BrokenYamlError as error:
            raise UserError(f"--set {assignment!r}: the value is broken YAML; put it in quotes") from error
    return options
