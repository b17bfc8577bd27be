"""The one command behind every kind of run: resolve the recipe, plan or check, work in a folder, print.

A command that takes a recipe and nothing else is registered with `add_run_command`. A command with options of
its own declares those of every run beside them (see `options`), collects them in a `Start`, and calls
`carry_out`. Specs are named as "module:NAME" and are imported when the command is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from llmctl.cli.options import (
    AllowCodeOption,
    AllowHostOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    RecipeArgument,
    RunOption,
    SetOption,
)

if TYPE_CHECKING:
    from llmctl.runs import Recipe
    from llmctl.runs.spec import RunSpec

    R = TypeVar("R", bound=Recipe)
    C = TypeVar("C")
    M = TypeVar("M")


@dataclass(frozen=True)
class Start:
    """The options of one command that makes a run."""

    recipe: str
    """Name or path of the recipe; it also names the folder where `folder` is None."""
    folder: Path | None = None
    sets: Sequence[str] | None = None
    as_json: bool = False
    dry_run: bool = False
    fresh: bool = False


def add_run_command(app: typer.Typer, command: str, spec: str, help: str) -> None:
    """Register a command that takes a recipe and the options of every run.

    Args:
        app: The command group.
        command: The whole command for the manifest, e.g. "rise run"; its last word is the name in the group.
        spec: Where the `RunSpec` is, e.g. "llmctl.rise.spec:RISE_RUN".
        help: The help text.
    """

    @app.command(command.split()[-1], help=help)
    def run_command(
        recipe: RecipeArgument,
        folder: RunOption = None,
        sets: SetOption = None,
        as_json: JsonOption = False,
        dry_run: DryRunOption = False,
        fresh: FreshOption = False,
        allow_code: AllowCodeOption = False,
        allow_host: AllowHostOption = None,
    ) -> None:
        carry_out(command, find_spec(spec), Start(recipe, folder, sets, as_json, dry_run, fresh))


def find_spec(target: str) -> Any:
    """Import what "module:NAME" names: a `RunSpec`, or a function that makes one."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def carry_out(command: str, spec: RunSpec[R, C, M], start: Start, recipe: R | None = None) -> M | None:
    """Print the plan of a dry run; otherwise check, then work in the run's folder and print the results.

    Args:
        command: The whole command, for the manifest, e.g. "rise run".
        spec: The kind of run.
        start: The user's options.
        recipe: Resolved, where the command has made it from its own options; None loads `start.recipe`.

    Returns:
        The metrics; None after a dry run.

    Raises:
        UserError: The recipe is wrong, or something that it names cannot be used, or it runs code of others
            that the user has not allowed. There is no folder then.
    """
    from llmctl.cli.output import print_json, print_shown
    from llmctl.runs import Run, load_recipe
    from llmctl.runs.recipe import recipe_content
    from llmctl.trust.code import check_code, code_named

    if recipe is None:
        recipe = load_recipe(spec.recipe, start.recipe, start.sets or [])
    if start.dry_run:
        print_plan(recipe, _estimate(spec, recipe), start.as_json)
        return None
    for what in code_named(recipe_content(recipe)):
        check_code(what)
    checked = spec.preflight(recipe)
    with Run.open(run_folder(start.folder, start.recipe), recipe, command, start.fresh) as run:
        metrics = spec.execute(run, recipe, checked, start.as_json)
        if start.as_json:
            print_json(metrics)
        else:
            print_shown(spec.show(run, recipe, metrics))
    return metrics


def _estimate(spec: RunSpec[R, C, M], recipe: R) -> dict[str, Any]:
    """The work of a recipe, and the code of others that it would run; none of it runs here."""
    from llmctl.runs.recipe import recipe_content
    from llmctl.trust.code import CodeRefusedError, code_named, code_stopped

    named = code_named(recipe_content(recipe))
    work: dict[str, Any] = {"runs code of others": ", ".join(named)} if named else {}
    try:
        with code_stopped():
            return work | dict(spec.estimate(recipe))
    except CodeRefusedError:
        return work | {"not estimated": "a dry run runs no code of others, and the work depends on it"}


def run_folder(folder: Path | None, recipe: str | Path) -> Path:
    """The folder of a run: `--run`, or else `runs/<recipe name>`."""
    from llmctl.runs.recipe import recipe_name

    return folder if folder is not None else Path("runs") / recipe_name(recipe)


def print_plan(recipe: Recipe, work: Mapping[str, Any], as_json: bool) -> None:
    """Print what `--dry-run` promises.

    Args:
        recipe: Resolved.
        work: An estimate of the work in words and numbers, e.g. {"episodes": 1200, "model calls": 9600}.
        as_json: Print one JSON document instead of YAML with comments.
    """
    from llmctl.cli.output import print_json, print_text
    from llmctl.runs.recipe import dump_recipe, recipe_content

    if as_json:
        print_json({"recipe": recipe_content(recipe), "work": dict(work)})
        return
    print_text(dump_recipe(recipe).rstrip())
    for what, amount in work.items():
        print_text(f"# {what}: {amount:,}" if isinstance(amount, int) else f"# {what}: {amount}")
