"""Options that every command which makes a run shares.

A command declares `RecipeArgument`, `RunOption`, `SetOption`, `JsonOption`, `DryRunOption` and
`FreshOption`, resolves its recipe with `load_recipe(..., sets or [])`, and either shows it with
`print_plan` or opens `Run.open(run_folder(folder, recipe), resolved, "rise run", fresh)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A name such as rise/default, or a YAML file.", show_default=False),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="The run's folder.", show_default="runs/<recipe name>"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. sampling.n=8; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, and no progress.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved recipe and the work it means; do nothing.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Remove what llmctl made in the run's folder, and start over.")
]


def run_folder(folder: Path | None, recipe: str | Path) -> Path:
    """Where a run goes: `--run`, else `runs/<recipe name>`."""
    from llmctl.runs.recipe import recipe_name

    return folder if folder is not None else Path("runs") / recipe_name(recipe)


def print_plan(recipe: BaseModel, work: Mapping[str, Any], as_json: bool) -> None:
    """What `--dry-run` prints.

    Args:
        recipe: Resolved.
        work: An estimate of the work in words and numbers, e.g. {"episodes": 1200, "model calls": 9600}.
        as_json: One JSON document in place of YAML with comments.
    """
    from llmctl.cli.output import print_json, print_text
    from llmctl.runs.recipe import dump_recipe, recipe_content

    if as_json:
        print_json({"recipe": recipe_content(recipe), "work": dict(work)})
        return
    print_text(dump_recipe(recipe).rstrip())
    for what, amount in work.items():
        print_text(f"# {what}: {amount:,}" if isinstance(amount, int) else f"# {what}: {amount}")


def parse_options(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Options such as `--set min_terms=2` of commands without a recipe; values are read as YAML.

    Raises:
        UserError: One is not of the form key=value.
    """
    import yaml

    from llmctl.errors import UserError
    from llmctl.runs.yaml_text import parse_yaml

    options = {}
    for assignment in assignments or ():
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UserError(f"--set {assignment!r} is not of the form option=value, e.g. --set size=100")
        try:
            options[key.strip()] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {assignment!r}: the value is broken YAML; put it in quotes") from error
    return options
