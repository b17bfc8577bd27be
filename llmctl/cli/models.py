"""`llmctl models`: list models, download one, describe one."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="List models, download one, or describe one.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Alias, folder or Hub name of the model.", show_default=False)
]


@app.command("list", help="List the models that have an alias.")
def list_(as_json: JsonOption = False) -> None:
    """Print aliases, descriptions, sources, and whether each model is available offline."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.models import list_models
    from llmctl.runs.tables import Table

    models = list_models()
    if as_json:
        fields = ("name", "description", "source", "is_here", "path")
        print_json([{field: getattr(model, field) for field in fields} for model in models])
        return
    rows = [[model.name, model.description, model.source, model.is_here] for model in models]
    print_table(Table(["model", "description", "source", "downloaded"], rows))


@app.command(help="Download a model, so that it can be used offline.")
def pull(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the folder of the model."""
    from llmctl.cli.output import print_json, print_text
    from llmctl.models import pull as pull_model

    folder = pull_model(name)
    if as_json:
        print_json({"name": name, "path": folder})
    else:
        print_text(str(folder))


@app.command(help="Show the architecture, sizes, folder and fingerprint of a model.")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print a table of properties."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.models.description import describe
    from llmctl.runs.tables import Table, format_cell

    facts = describe(name)
    if as_json:
        print_json(facts)
    else:
        rows = [[key.replace("_", " "), format_cell(value)] for key, value in facts.items()]
        print_table(Table(["property", "value"], rows, caption=name))
