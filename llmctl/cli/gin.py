"""`llmctl gin`: compare Sparse-GIN with LoRA at equal size, and look at the graphs that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import JsonOption
from llmctl.cli.run_command import add_run_command

if TYPE_CHECKING:
    from llmctl.studies.attention_graph import GraphView

app = typer.Typer(
    no_args_is_help=True, help="Sparse-GIN adapters and graph attention: compare them, look at them."
)


add_run_command(
    app,
    "gin compare",
    "llmctl.studies.adapters.spec:COMPARE_RUN",
    help="Train adapters, or architectures from scratch, at equal size and compare them. An interrupted run "
    "continues where it stopped.",
)


@app.command(help="The graph that a layer makes of a text: strongest edges, degrees, scales; and figures.")
def show(
    text: Annotated[str, typer.Option("--text", help="What the model reads, as it is.", show_default=False)],
    layer: Annotated[int, typer.Option("--layer", help="Decoder layer, from 0.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="A short name, a folder or a Hub name.")] = "smollm2-135m",
    adapter: Annotated[
        Path | None,
        typer.Option(help="A folder with a Sparse-GIN adapter; without it, its default settings are shown."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Draw figures into it, and write the numbers.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Of the figures: png or svg.")] = "png",
    top: Annotated[int, typer.Option("--top", min=1, help="Strongest edges to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """One layer on one text."""
    from llmctl.cli.output import print_json, print_text
    from llmctl.errors import UserError
    from llmctl.studies.attention_graph import FORMATS, view_graph, write_figures

    if form not in FORMATS:
        raise UserError(f"--format is {form!r}, but it must be one of {', '.join(FORMATS)}")
    view = view_graph(model, text, layer, adapter=adapter, strongest=top)
    paths = write_figures(view, out, form) if out is not None else []
    if as_json:
        print_json(view.to_dict() | {"figures": paths})
        return
    _print(view)
    for path in paths:
        print_text(f"figure: {path}")


def _print(view: GraphView) -> None:
    """Tables for people."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.runs import Table
    from llmctl.studies.attention_graph import show_token

    rows = [
        [
            show_token(view.tokens[edge.hears]),
            edge.hears,
            show_token(view.tokens[edge.heard]),
            edge.heard,
            edge.weight,
        ]
        for edge in view.edges
    ]
    caption = f"Layer {view.layer}: the strongest edges between different tokens."
    print_table(Table(["hears", "at", "heard", "at ", "weight"], rows, caption))
    tokens = [
        [number, show_token(token), hears, heard]
        for number, (token, hears, heard) in enumerate(
            zip(view.tokens, view.hears, view.heard_by, strict=True)
        )
    ]
    print_table(Table(["at", "token", "hears", "heard by"], tokens, "Degrees, without self-loops."))
    scales = [[layer, scale] for layer, scale in view.scales.items()]
    print_table(Table(["layer", "scale"], scales, "What each layer's contribution is multiplied by."))
    print_text(
        f"{100 * view.density:.1f} % of the possible edges, {view.mean_distance:.1f} tokens apart on average"
        + (f", over {view.graphs} heads" if view.graphs > 1 else "")
    )
    if view.adapter is None:
        print_text("No adapter was given: this is the graph of Sparse-GIN's default settings, untrained.")
