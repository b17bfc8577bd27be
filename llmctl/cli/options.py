"""Options that every command which makes a run shares.

A command that takes a recipe and nothing else is registered by `recipe_command`; its function is given a
`Start`, which loads the recipe, prints the plan of a dry run, and carries the work out in the run's folder.
One with options of its own declares `RecipeArgument`, `RunOption`, `SetOption`, `JsonOption`,
`DryRunOption` and `FreshOption` beside them, and makes the `Start` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from llmctl.runs import Recipe, Run

    R = TypeVar("R", bound=Recipe)

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


@dataclass(frozen=True)
class Start:
    """What a user gave a command that makes a run."""

    recipe: str
    folder: Path | None = None
    sets: Sequence[str] | None = None
    as_json: bool = False
    dry_run: bool = False
    fresh: bool = False

    def load(self, cls: type[R]) -> R:
        """The recipe with its overrides.

        Raises:
            UserError: As `llmctl.runs.load_recipe`.
        """
        from llmctl.runs import load_recipe

        return load_recipe(cls, self.recipe, self.sets or [])

    def is_plan(self, resolved: BaseModel, estimate: Callable[[], Mapping[str, Any]]) -> bool:
        """Whether this is a dry run, which ends with the plan that is printed here."""
        if self.dry_run:
            print_plan(resolved, estimate(), self.as_json)
        return self.dry_run

    def carry_out(
        self,
        command: str,
        resolved: BaseModel,
        work: Callable[[Run], Any],
        show: Callable[[Run, Any], None],
    ) -> None:
        """Do the work in the run's folder, and print what came of it.

        Inputs are checked before this is called: the folder would hold on to a mistake.

        Args:
            command: For the manifest, e.g. "rise run".
            resolved: The recipe.
            work: Gives what `--json` prints.
            show: Prints it for people.
        """
        from llmctl.cli.output import print_json
        from llmctl.runs import Run

        with Run.open(run_folder(self.folder, self.recipe), resolved, command, self.fresh) as run:
            result = work(run)
            if self.as_json:
                print_json(result)
            else:
                show(run, result)


def recipe_command(
    app: typer.Typer, name: str, help: str
) -> Callable[[Callable[[Start], None]], Callable[[Start], None]]:
    """Register a function as a command that takes a recipe and the options of every run."""

    def register(body: Callable[[Start], None]) -> Callable[[Start], None]:
        @app.command(name, help=help)
        def command(
            recipe: RecipeArgument,
            folder: RunOption = None,
            sets: SetOption = None,
            as_json: JsonOption = False,
            dry_run: DryRunOption = False,
            fresh: FreshOption = False,
        ) -> None:
            body(Start(recipe, folder, sets, as_json, dry_run, fresh))

        return body

    return register


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
