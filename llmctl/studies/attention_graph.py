"""The graph that Sparse-GIN makes of a text at one layer: as data, and as figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs import new_figure
from llmctl.runs.files import make_folder, write_bytes, write_json

FORMATS = ("png", "svg")
MAX_TOKENS = 512  # a heat map of more is no picture, and the graph takes T x T numbers


@dataclass(frozen=True)
class Edge:
    """Token `hears` listens to token `heard`, by position."""

    hears: int
    heard: int
    weight: float


@dataclass(frozen=True)
class GraphView:
    """The graph of one layer on one text; graphs of several heads are averaged."""

    layer: int
    tokens: list[str]
    adjacency: list[list[float]]  # (T, T), row i hears column j; 0 is no edge
    hears: list[int]  # earlier tokens that each token hears, itself not counted
    heard_by: list[int]  # later tokens that hear it
    edges: list[Edge]  # between different tokens, the strongest first
    density: float  # edges between different tokens, as a share of those that could be
    mean_distance: float  # in tokens, weighted by edge
    scales: dict[int, float]  # what each layer's contribution is multiplied by
    graphs: int  # 1, or the number of heads
    adapter: str | None  # None: the default settings on the base model, whose scale is 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, edges with the text of both tokens."""
        edges = [
            {
                "hears": edge.hears,
                "heard": edge.heard,
                "text": [self.tokens[edge.hears], self.tokens[edge.heard]],
                "weight": edge.weight,
            }
            for edge in self.edges
        ]
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"edges": edges, "scales": {str(layer): s for layer, s in self.scales.items()}}


def view_graph(
    model: str, text: str, layer: int, *, adapter: str | Path | None = None, strongest: int = 20
) -> GraphView:
    """Run a model on a text and return the graph of a layer.

    Args:
        model: Alias, folder or Hub name.
        text: Taken as it is, without a chat template.
        layer: Index of a decoder layer, from 0.
        adapter: Folder of a Sparse-GIN adapter; None shows the graph that its default settings would make.
        strongest: Edges to list.

    Raises:
        UserError: No such model, adapter or layer; the text has fewer than 2 or more than 512 tokens.
    """
    from llmctl.models.quiet import quiet_libraries

    with quiet_libraries():
        import torch

        from llmctl.gin import adapter_graphs
        from llmctl.models.loading import load

        loaded = load(model, adapter=adapter, dtype="float32")
        tuned = loaded.model if adapter is not None else _with_default(loaded.model)
        ids = loaded.tokenizer(text)["input_ids"]
        if not 2 <= len(ids) <= MAX_TOKENS:
            raise UserError(
                f"the text has {len(ids)} tokens, but 2 to {MAX_TOKENS} are needed to draw its graph"
            )
        _check_layer(tuned, layer)
        graphs = adapter_graphs(tuned, input_ids=torch.tensor([ids], device=loaded.device))
    found = {graph.layer: graph for graph in graphs}[layer]
    adjacency = found.edges[0].mean(0)  # (T, T)
    others = adjacency * (1 - torch.eye(len(ids), device=adjacency.device))
    return GraphView(
        layer=layer,
        tokens=[str(loaded.tokenizer.decode([token])) for token in ids],
        adjacency=adjacency.tolist(),
        hears=(others > 0).sum(1).tolist(),
        heard_by=(others > 0).sum(0).tolist(),
        edges=_strongest(others, strongest),
        density=found.density(),
        mean_distance=found.mean_distance(),
        scales={graph.layer: graph.scale for graph in graphs},
        graphs=found.edges.shape[1],
        adapter=None if adapter is None else str(adapter),
    )


def _with_default(model: Any) -> Any:
    from peft import get_peft_model

    from llmctl.gin import SparseGinConfig

    return get_peft_model(model, SparseGinConfig(task_type="CAUSAL_LM")).eval()


def _check_layer(model: Any, layer: int) -> None:
    """Refuse a layer that the model has not, or that has no adapter."""
    from llmctl.gin import SparseGinLayer

    there = sorted(module.layer_idx for module in model.modules() if isinstance(module, SparseGinLayer))
    if not there:
        raise UserError("the adapter is no Sparse-GIN adapter, so it has no graph: give one that is")
    if layer not in there:
        known = f"0 to {there[-1]}" if there == list(range(len(there))) else ", ".join(map(str, there))
        raise UserError(f"--layer is {layer}, but there is a graph at layers {known}: choose one of these")


def _strongest(others: Any, count: int) -> list[Edge]:
    values, places = others.flatten().sort(descending=True, stable=True)
    length = others.shape[0]
    return [
        Edge(place // length, place % length, value)
        for value, place in zip(values[:count].tolist(), places[:count].tolist(), strict=True)
        if value > 0
    ]


def write_figures(view: GraphView, folder: Path, form: str = "png") -> list[Path]:
    """Draw adjacency, degrees and scales into a folder, and write the numbers beside them as JSON.

    Args:
        view: What to draw.
        folder: Made where it is missing.
        form: "png" or "svg".

    Returns:
        The figures' paths.

    Raises:
        UserError: The disk refused.
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
    """The picture's file, the same bytes for the same picture: no date, no version, no random names."""
    from matplotlib import rc_context

    data = io.BytesIO()
    with rc_context({"svg.hashsalt": "llmctl"}):
        figure.savefig(data, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return data.getvalue()


def draw_adjacency(view: GraphView) -> Any:
    """Heat map: row i hears column j."""
    size = min(14.0, 3.5 + 0.16 * len(view.tokens))
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(view.adjacency, cmap="viridis", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="edge weight", shrink=0.7)
    _name_ticks(axes.set_xticks, view.tokens, rotation=90)
    _name_ticks(axes.set_yticks, view.tokens)
    axes.set(xlabel="token that is heard", ylabel="token that hears", title=f"layer {view.layer}")
    return figure


def draw_degrees(view: GraphView) -> Any:
    """How many tokens each one hears, and is heard by."""
    figure = new_figure(min(14.0, 3.5 + 0.16 * len(view.tokens)), 3.6)
    axes = figure.subplots()
    places = range(len(view.tokens))
    axes.bar(places, view.hears, color="#1f6fb4", label="hears earlier tokens")
    axes.bar(places, [-n for n in view.heard_by], color="#d1495b", label="is heard by later tokens")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _name_ticks(axes.set_xticks, view.tokens, rotation=90)
    axes.set(ylabel="edges", title=f"layer {view.layer}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_scales(view: GraphView) -> Any:
    """What each layer's contribution is multiplied by."""
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(list(view.scales), list(view.scales.values()), marker="o", color="#1f6fb4")
    axes.plot([view.layer], [view.scales[view.layer]], "o", color="#d1495b")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="layer", ylabel="scale")
    if view.adapter is None:
        axes.set_title("default settings without training: every scale is 0", fontsize=9)
    return figure


def show_token(token: str) -> str:
    """A token in one line, with marks for spaces and line breaks."""
    return token.replace("\n", "↵").replace(" ", "·") or "∅"


def _name_ticks(set_ticks: Any, tokens: Sequence[str], **style: Any) -> None:
    step = max(1, len(tokens) // 80)
    places = range(0, len(tokens), step)
    # A dollar would start mathematics.
    names = [show_token(tokens[place])[:14].replace("$", r"\$") for place in places]
    set_ticks(places, names, fontsize=7, **style)
