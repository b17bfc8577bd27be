"""`llmctl msr run` and its phases, and the commands on a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.options import AllowCodeOption, AllowHostOption, JsonOption
from llmctl.cli.run_command import add_run_command

SPEC = "llmctl.msr.spec"

FolderOption = Annotated[
    Path, typer.Option("--run", metavar="DIR", help="Folder of the run.", show_default=False)
]
ArmOption = Annotated[
    str | None,
    typer.Option("--arm", help="Name of one of the run's arms.", show_default="the first arm, or all"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command, spec, help_text in (
        (
            "msr run",
            "MSR_RUN",
            "Run everything in a recipe, and write a report. An interrupted run continues where it stopped.",
        ),
        ("msr summarize-items", "SUMMARIZE_ITEMS_RUN", "Run one phase: describe the image of every item."),
        (
            "msr summarize-users",
            "SUMMARIZE_USERS_RUN",
            "Run one phase: summarize the preferences of every user, one block of items after the other.",
        ),
        ("msr train", "TRAIN_RUN", "Run one phase: train the recommenders to answer yes or no."),
        (
            "msr eval",
            "EVALUATE_RUN",
            "Run one phase: score the frozen candidate lists with every model of the recipe.",
        ),
    ):
        add_run_command(app, command, f"{SPEC}:{spec}", help=help_text)
    app.command("show-user", help="Show how the summary of a user changed along the history, by block.")(
        show_user
    )
    app.command("recommend", help="Recommend items to a user, with the reason.")(recommend)


def show_user(
    user: Annotated[
        str, typer.Argument(metavar="USER", help="Id of the user in the data.", show_default=False)
    ],
    folder: FolderOption,
    arm: ArmOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the blocks and their summaries."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.msr.recommender import show_user as shown

    found = shown.show_user(folder, user, arm)
    if as_json:
        print_json(found)
        return
    for name, blocks in found.items():
        print_table(shown.blocks_table(blocks, folder, name, f"{name}: user {user}"))


def recommend(
    user: Annotated[str, typer.Option("--user", help="Id of the user in the data.", show_default=False)],
    folder: FolderOption,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of items to recommend.")] = 10,
    pool: Annotated[
        int, typer.Option("--pool", min=1, help="Number of candidates that the model scores.")
    ] = 100,
    arm: ArmOption = None,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Print the reason, and a table of items."""
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
