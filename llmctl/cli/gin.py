"""`llmctl gin`: compare Sparse-GIN with LoRA at equal size, and show the graphs that it builds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import JsonOption
from llmctl.cli.run_command import add_run_command

if TYPE_CHECKING:
    from llmctl.studies.attention_graph import GraphView

app = typer.Typer(
    no_args_is_help=True,
    help="Compare Sparse-GIN adapters and graph attention with others, and show their graphs.",
)


add_run_command(
    app,
    "gin compare",
    "llmctl.studies.adapters.spec:COMPARE_RUN",
    help="Train adapters, or architectures from scratch, at equal size and compare them. An interrupted run "
    "continues where it stopped.",
)


@app.command(
    help="Show the graph that a layer builds from a text: strongest edges, degrees, scales, and plots."
)
def show(
    text: Annotated[
        str,
        typer.Option(
            "--text", help="Text that the model reads, without a chat template.", show_default=False
        ),
    ],
    layer: Annotated[int, typer.Option("--layer", help="Index of the decoder layer, from 0.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="Alias, folder or Hub name of the model.")] = "smollm2-135m",
    adapter: Annotated[
        Path | None,
        typer.Option(help="Folder of a Sparse-GIN adapter; without one, the default settings are used."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for plots and numbers.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Format of the plots: png or svg.")] = "png",
    top: Annotated[int, typer.Option("--top", min=1, help="Number of strongest edges to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Print the graph of one layer on one text."""
    from llmctl.cli.output import print_json, print_text
    from llmctl.errors import UserError
    from llmctl.studies.attention_graph import FORMATS, view_graph, write_plots

    if form not in FORMATS:
        raise UserError(f"--format is {form!r}, but it must be one of {', '.join(FORMATS)}")
    view = view_graph(model, text, layer, adapter=adapter, strongest=top)
    paths = write_plots(view, out, form) if out is not None else []
    if as_json:
        print_json(view.to_dict() | {"figures": paths})
        return
    _print(view)
    for path in paths:
        print_text(f"plot: {path}")


def _print(view: GraphView) -> None:
    """Print the graph as tables."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.runs import Table
    from llmctl.studies.attention_graph import show_token

    rows = [
        [
            show_token(view.tokens[edge.receiver]),
            edge.receiver,
            show_token(view.tokens[edge.sender]),
            edge.sender,
            edge.weight,
        ]
        for edge in view.edges
    ]
    caption = f"Layer {view.layer}: the strongest edges between different tokens."
    print_table(Table(["token", "position", "attends to", "position ", "weight"], rows, caption))
    tokens = [
        [number, show_token(token), received, sent]
        for number, (token, received, sent) in enumerate(
            zip(view.tokens, view.in_degrees, view.out_degrees, strict=True)
        )
    ]
    print_table(
        Table(["position", "token", "attends to", "attended by"], tokens, "Degrees, without self-loops.")
    )
    scales = [[layer, scale] for layer, scale in view.scales.items()]
    print_table(Table(["layer", "scale"], scales, "Factor on the contribution of each layer."))
    print_text(
        f"{100 * view.density:.1f} % of the possible edges, {view.mean_distance:.1f} tokens apart on average"
        + (f", over {view.graphs} heads" if view.graphs > 1 else "")
    )
    if view.adapter is None:
        print_text("No adapter was given: this is the graph of Sparse-GIN's default settings, untrained.")
