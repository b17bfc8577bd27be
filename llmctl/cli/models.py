"""`llmctl models`: which models have a short name, which are here, what one is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Models: list them, get one, look at one.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A short name, a folder or a Hub name.", show_default=False)
]


@app.command("list", help="List the models that have a short name.")
def list_(as_json: JsonOption = False) -> None:
    """Names, what they are, where they come from and whether they are here."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.models import list_models
    from llmctl.runs.tables import Table

    models = list_models()
    if as_json:
        fields = ("name", "description", "source", "is_here", "path")
        print_json([{field: getattr(model, field) for field in fields} for model in models])
        return
    rows = [[model.name, model.description, model.source, model.is_here] for model in models]
    print_table(Table(["model", "what it is", "from", "here"], rows))


@app.command(help="Get a model, so that it can be used without a network.")
def pull(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the folder that it is in."""
    from llmctl.cli.output import print_json, print_text
    from llmctl.models import pull as pull_model

    folder = pull_model(name)
    if as_json:
        print_json({"name": name, "path": folder})
    else:
        print_text(str(folder))


@app.command(help="Show what a model is made of.")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Architecture, sizes, folder and fingerprint."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.models.description import describe
    from llmctl.runs.tables import Table, format_cell

    facts = describe(name)
    if as_json:
        print_json(facts)
    else:
        rows = [[key.replace("_", " "), format_cell(value)] for key, value in facts.items()]
        print_table(Table(["what", "value"], rows, caption=name))
