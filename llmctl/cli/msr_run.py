"""`llmctl msr run` and its phases, and what may be asked of a run that is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import JsonOption, Start, recipe_command

if TYPE_CHECKING:
    from llmctl.msr.phases import MsrPhases
    from llmctl.msr.recipe import MsrRecipe
    from llmctl.runs import Run

FolderOption = Annotated[
    Path, typer.Option("--run", metavar="DIR", help="The folder of a run.", show_default=False)
]
ArmOption = Annotated[
    str | None, typer.Option("--arm", help="One of the run's arms.", show_default="the first, or all")
]


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    recipe_command(
        app,
        "run",
        help="Everything that a recipe says, and a report. Goes on where it was stopped.",
    )(run)
    recipe_command(app, "summarize-items", help="One phase: a model describes every picture, once.")(
        summarize_items
    )
    recipe_command(app, "summarize-users", help="One phase: sum up what every user likes, block by block.")(
        summarize_users
    )
    recipe_command(app, "train", help="One phase: teach the recommenders to answer yes or no.")(train)
    recipe_command(app, "eval", help="One phase: score the frozen lists with every model of the recipe.")(
        evaluate
    )
    app.command("show-user", help="How a user's summary went along with the history, block by block.")(
        show_user
    )
    app.command("recommend", help="The items that a user will want, with the reason.")(recommend)


def run(start: Start) -> None:
    """All phases."""

    def work(open_run: Run, recipe: MsrRecipe) -> dict[str, Any]:
        from llmctl.msr.run import run_msr

        return run_msr(open_run, recipe, quiet=start.as_json)

    _carry_out("msr run", start, work)


def summarize_items(start: Start) -> None:
    """Descriptions of pictures."""

    def work(phases: MsrPhases) -> dict[str, Any]:
        return dict(phases.describe_items())

    _phase("msr summarize-items", start, work)


def summarize_users(start: Start) -> None:
    """Summaries of users."""

    def work(phases: MsrPhases) -> dict[str, Any]:
        phases.describe_items()
        arms = [arm for arm in phases.recipe.resolved_arms if arm.users.mode != "none"]
        for arm in arms:
            phases.summarize_users(arm)
        journals = {phases.recipe.summaries_of(arm) for arm in arms}
        return {name: sum(1 for _ in phases.run.journal(name)) for name in sorted(journals)}

    _phase("msr summarize-users", start, work)


def train(start: Start) -> None:
    """Adapters."""

    def work(phases: MsrPhases) -> dict[str, Any]:
        found = {}
        for arm in phases.recipe.resolved_arms:
            if (result := phases.train(arm)) is not None:
                found[arm.name] = {
                    "output": str(result.output),
                    "rows": result.rows,
                    "dropped_rows": result.dropped_rows,
                    "steps": result.steps,
                    "last_loss": result.losses[-1],
                    "seconds": round(result.seconds, 1),
                }
        return found

    _phase("msr train", start, work)


def evaluate(start: Start) -> None:
    """Figures of all models."""

    def work(open_run: Run, recipe: MsrRecipe) -> dict[str, Any]:
        from llmctl.msr.run import run_phases

        def score(phases: MsrPhases) -> None:
            for arm in recipe.resolved_arms:
                for model in arm.models:
                    phases.evaluate(arm, model)

        return run_phases(open_run, recipe, score, quiet=start.as_json)

    _carry_out("msr eval", start, work)


def show_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="As the data names them.", show_default=False)],
    folder: FolderOption,
    arm: ArmOption = None,
    as_json: JsonOption = False,
) -> None:
    """Blocks and summaries."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.msr.recommender import show_user as shown

    found = shown.show_user(folder, user, arm)
    if as_json:
        print_json(found)
        return
    for name, blocks in found.items():
        print_table(shown.blocks_table(blocks, folder, name, f"{name}: user {user}"))


def recommend(
    user: Annotated[str, typer.Option("--user", help="As the data names them.", show_default=False)],
    folder: FolderOption,
    top: Annotated[int, typer.Option("--top", min=1, help="Items.")] = 10,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Items that the model is asked about.")] = 100,
    arm: ArmOption = None,
    as_json: JsonOption = False,
) -> None:
    """A table, the reason above it."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.errors import UserError
    from llmctl.msr.data.prepared import open_prepared, run_recipe
    from llmctl.msr.recommender.examples import CaseReader
    from llmctl.msr.recommender.rank_user import recommend_to
    from llmctl.runs import Run, Table

    recipe = run_recipe(folder)
    names = [one.name for one in recipe.resolved_arms]
    if arm is not None and arm not in names:
        raise UserError(f"--arm is {arm!r}, but the arms of the run are {', '.join(names)}")
    with Run.open(folder, recipe, "msr recommend") as open_run:
        reader = CaseReader(open_run, recipe, open_prepared(folder))
        found = recommend_to(reader, recipe.arm(arm or names[0]), user, top, pool)
    if as_json:
        print_json(found.to_dict())
        return
    print_text(f"because user {user} is known for:\n{found.preferences}\n")
    caption = f"The best of {found.scored} items that were asked about, by {found.arm}."
    has_said = any(one.description for one in found.items)
    columns = ["", "title", *(["said of its picture"] if has_said else []), "item", "P(yes)"]
    rows = [
        [place, one.title or one.item, *([one.description] if has_said else []), one.item, one.yes]
        for place, one in enumerate(found.items, 1)
    ]
    print_table(Table(columns, rows, caption))


def _phase(command: str, start: Start, work: Callable[[MsrPhases], dict[str, Any]]) -> None:
    """One phase, whose result is a few counts."""
    found: dict[str, Any] = {}

    def one(open_run: Run, recipe: MsrRecipe) -> dict[str, Any]:
        from llmctl.msr.run import run_phases

        run_phases(open_run, recipe, lambda phases: found.update(work(phases)), quiet=start.as_json)
        return found

    _carry_out(command, start, one)


def _carry_out(command: str, start: Start, work: Callable[[Run, MsrRecipe], dict[str, Any]]) -> None:
    """Resolve the recipe, then show the plan or open the run and do the work."""
    from llmctl.msr.preflight import estimate_work
    from llmctl.msr.recipe import MsrRecipe

    recipe = start.load(MsrRecipe)
    if start.is_plan(recipe, lambda: estimate_work(recipe)):
        return
    from llmctl.msr.preflight import check_inputs

    check_inputs(recipe)
    start.carry_out(
        command,
        recipe,
        lambda open_run: work(open_run, recipe),
        lambda open_run, result: _print(open_run, command, result),
    )


def _print(open_run: Run, command: str, result: dict[str, Any]) -> None:
    """Figures or counts, and where everything is."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.msr.data.prepared import open_prepared
    from llmctl.msr.evaluation.tables import metric_table
    from llmctl.runs import Table
    from llmctl.runs.files import read_json

    if command in ("msr run", "msr eval"):
        print_table(metric_table(result, open_prepared(open_run.folder)))
        for one in read_json(open_run.folder / "comparisons.json"):
            print_text(f"- {one['sentence']}")
        print_text(f"report: {open_run.folder / 'report.html'}")
        return
    print_table(Table(["", command], [[name, str(value)] for name, value in result.items()]))
    print_text(f"run: {open_run.folder}")
