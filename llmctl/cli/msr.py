"""`llmctl msr`: predict what a user will want next from images and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import msr_demo, msr_run
from llmctl.cli.options import (
    AllowCodeOption,
    AllowHostOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    RunOption,
    SetOption,
)
from llmctl.cli.run_command import Start, add_run_command, carry_out, find_spec

if TYPE_CHECKING:
    from llmctl.msr.recipe import MsrRecipe

app = typer.Typer(no_args_is_help=True, help="MLLM-MSR: sequential recommendation from images and text.")
app.command("demo", help=msr_demo.HELP)(msr_demo.demo)
app.command("demo-model", help=msr_demo.MODEL_HELP)(msr_demo.demo_model)
msr_run.register(app)

OptionalRecipe = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE]",
        help="Name or YAML file of a recipe; without one, give the data as options.",
        show_default=False,
    ),
]
DEFAULT_RUN = "msr/data"  # under runs/, where options take the place of a recipe


@app.command(help="Read, filter and split the data, and draw the frozen candidate lists.")
def prepare(
    recipe: OptionalRecipe = None,
    interactions: Annotated[
        Path | None, typer.Option("--interactions", help="File of interactions.", show_default=False)
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="File of items and their titles.", show_default=False)
    ] = None,
    data_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Format of the data: microlens, amazon or files.", show_default="files"
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of images whose names are item ids.")
    ] = None,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Print the counts before and after every filter, and the chance level of every metric."""
    given = {"format": data_format, "interactions": interactions, "items": items, "images": images}
    resolved = _resolve(recipe, {name: value for name, value in given.items() if value is not None}, sets)
    start = Start(recipe or DEFAULT_RUN, folder, sets, as_json, dry_run, fresh)
    carry_out("msr prepare", find_spec("llmctl.msr.spec:PREPARE_RUN"), start, resolved)


add_run_command(
    app,
    "msr baselines",
    "llmctl.msr.spec:BASELINES_RUN",
    help="Fit the baselines and score them on the frozen candidate lists. An interrupted run continues where "
    "it stopped.",
)


def _resolve(recipe: str | None, options: dict[str, Any], sets: list[str] | None) -> MsrRecipe:
    """The recipe with the options applied; the options alone if there is no recipe."""
    import json

    from llmctl.errors import UserError
    from llmctl.msr.recipe import MsrRecipe
    from llmctl.runs import build_recipe, load_recipe

    # JSON is YAML, so a path keeps its blanks and colons
    lines = [f"data.{name}={json.dumps(str(value))}" for name, value in options.items()]
    overrides = [*lines, *(sets or [])]
    if recipe is not None:
        return load_recipe(MsrRecipe, recipe, overrides)
    if not {"interactions", "items"} <= set(options) and not sets:
        raise UserError(
            "neither a recipe nor files were given: name a recipe, or give --interactions and --items"
        )
    return build_recipe(MsrRecipe, {}, "the options", overrides)
