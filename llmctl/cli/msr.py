"""`llmctl msr`: what a user will want next, seen through images and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import msr_demo, msr_run
from llmctl.cli.options import (
    DryRunOption,
    FreshOption,
    JsonOption,
    RunOption,
    SetOption,
    Start,
    recipe_command,
)

if TYPE_CHECKING:
    from llmctl.msr.recipe import MsrRecipe
    from llmctl.runs import Run

app = typer.Typer(no_args_is_help=True, help="MLLM-MSR: multimodal sequential recommendation.")
app.command("demo", help=msr_demo.HELP)(msr_demo.demo)
app.command("demo-model", help=msr_demo.MODEL_HELP)(msr_demo.demo_model)
msr_run.register(app)

OptionalRecipe = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", help="A name or a YAML file; else give options.", show_default=False),
]
DEFAULT_RUN = "msr/data"  # under runs/, where options take the place of a recipe


@app.command(help="Read, filter and split the data, and draw the frozen candidate lists.")
def prepare(
    recipe: OptionalRecipe = None,
    interactions: Annotated[
        Path | None, typer.Option("--interactions", help="File of interactions.", show_default=False)
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="File of items and titles.", show_default=False)
    ] = None,
    data_format: Annotated[
        str | None, typer.Option("--format", help="microlens, amazon or files.", show_default="files")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of pictures named after items.")
    ] = None,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Counts before and after every filter, and the level of every metric by chance."""
    from llmctl.msr.data.prepare import prepare_data
    from llmctl.msr.data.readers import open_source

    given = {"format": data_format, "interactions": interactions, "items": items, "images": images}
    resolved = _resolve(recipe, {name: value for name, value in given.items() if value is not None}, sets)
    start = Start(recipe or DEFAULT_RUN, folder, sets, as_json, dry_run, fresh)
    if start.is_plan(resolved, lambda: {"files to read": 2}):
        return
    open_source(resolved.data)

    def work(run: Run) -> dict[str, Any]:
        return dict(prepare_data(run, resolved).facts)

    start.carry_out("msr prepare", resolved, work, lambda run, _: _print_data(run))


def _print_data(run: Run) -> None:
    """Filters, split and chance levels of what was prepared."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.msr.data.prepared import open_prepared
    from llmctl.msr.data.tables import chance_table, filter_table, split_table

    prepared = open_prepared(run.folder)
    for table in (filter_table(prepared), split_table(prepared), chance_table(prepared)):
        print_table(table)
    print_text(f"data version:   {prepared.data_version}\ncandidate hash: {prepared.candidate_hash}")
    print_text(f"run: {run.folder}")


@recipe_command(
    app, "baselines", help="Fit and score the baselines on the frozen lists. Goes on where it was stopped."
)
def baselines(start: Start) -> None:
    """Popularity, neighbours, GRU4Rec and SASRec."""
    from llmctl.msr.baselines import run_baselines
    from llmctl.msr.data.prepare import prepare_data
    from llmctl.msr.data.readers import open_source
    from llmctl.msr.recipe import MsrRecipe

    resolved = start.load(MsrRecipe)
    if start.is_plan(resolved, lambda: {"baselines": len(resolved.baselines.names)}):
        return
    open_source(resolved.data)

    def work(run: Run) -> dict[str, Any]:
        return dict(run_baselines(run, resolved, prepare_data(run, resolved), quiet=start.as_json))

    start.carry_out("msr baselines", resolved, work, _print_figures)


def _print_figures(run: Run, figures: dict[str, Any]) -> None:
    """Every baseline on the lists, and among all items."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.msr.data.prepared import open_prepared
    from llmctl.msr.evaluation.tables import full_table, metric_table

    print_table(metric_table(figures, open_prepared(run.folder)))
    if (full := full_table(figures)) is not None:
        print_table(full)
    print_text(f"run: {run.folder}")


def _resolve(recipe: str | None, options: dict[str, Any], sets: list[str] | None) -> MsrRecipe:
    """The recipe, with the options over it; the options alone where there is no recipe."""
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
