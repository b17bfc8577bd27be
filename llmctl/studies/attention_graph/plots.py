"""Plots of a layer's graph: adjacency, degrees and scales."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.runs import new_figure
from llmctl.runs.files import make_folder, write_bytes, write_json
from llmctl.studies.attention_graph.record import GraphView, show_token

FORMATS = ("png", "svg")


def write_plots(view: GraphView, folder: Path, form: str = "png") -> list[Path]:
    """Draw adjacency, degrees and scales into a folder, and write the numbers beside them as JSON.

    Args:
        view: The graph.
        folder: Folder for the plots; it is made if it is missing.
        form: "png" or "svg".

    Returns:
        Paths of the plots.

    Raises:
        UserError: The folder cannot be written to.
    """
    make_folder(folder)
    write_json(folder / f"layer-{view.layer}.json", view.to_dict())
    drawings = {"adjacency": draw_adjacency, "degrees": draw_degrees, "scales": draw_scales}
    paths = []
    for name, draw in drawings.items():
        path = folder / f"layer-{view.layer}-{name}.{form}"
        write_bytes(path, _render(draw(view), form))
        paths.append(path)
    return paths


def _render(figure: Any, form: str) -> bytes:
    """The file of a plot. The same plot gives the same bytes: no date, no version, no random names."""
    from matplotlib import rc_context

    data = io.BytesIO()
    with rc_context({"svg.hashsalt": "llmctl"}):
        figure.savefig(data, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return data.getvalue()


def draw_adjacency(view: GraphView) -> Any:
    """Heat map of edge weights: row i receives messages of column j."""
    size = min(14.0, 3.5 + 0.16 * len(view.tokens))
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(view.adjacency, cmap="viridis", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="edge weight", shrink=0.7)
    _name_ticks(axes.set_xticks, view.tokens, rotation=90)
    _name_ticks(axes.set_yticks, view.tokens)
    axes.set(xlabel="sending token", ylabel="receiving token", title=f"layer {view.layer}")
    return figure


def draw_degrees(view: GraphView) -> Any:
    """Number of edges to and from each token."""
    figure = new_figure(min(14.0, 3.5 + 0.16 * len(view.tokens)), 3.6)
    axes = figure.subplots()
    places = range(len(view.tokens))
    axes.bar(places, view.in_degrees, color="#1f6fb4", label="receives from earlier tokens")
    axes.bar(places, [-n for n in view.out_degrees], color="#d1495b", label="sends to later tokens")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _name_ticks(axes.set_xticks, view.tokens, rotation=90)
    axes.set(ylabel="edges", title=f"layer {view.layer}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_scales(view: GraphView) -> Any:
    """Factor on the contribution of each layer."""
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(list(view.scales), list(view.scales.values()), marker="o", color="#1f6fb4")
    axes.plot([view.layer], [view.scales[view.layer]], "o", color="#d1495b")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="layer", ylabel="scale")
    if view.adapter is None:
        axes.set_title("default settings without training: every scale is 0", fontsize=9)
    return figure


def _name_ticks(set_ticks: Any, tokens: Sequence[str], **style: Any) -> None:
    step = max(1, len(tokens) // 80)
    places = range(0, len(tokens), step)
    # matplotlib reads a dollar sign as the start of a formula.
    names = [show_token(tokens[place])[:14].replace("$", r"\$") for place in places]
    set_ticks(places, names, fontsize=7, **style)
