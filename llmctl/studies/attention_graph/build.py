"""Run a model on a text and build the graph of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.studies.attention_graph.record import GraphEdge, GraphView

MAX_TOKENS = 512  # a heat map of more cannot be read, and the graph takes T x T numbers


def view_graph(
    model: str, text: str, layer: int, *, adapter: str | Path | None = None, strongest: int = 20
) -> GraphView:
    """Run a model on a text and return the graph of a layer.

    Args:
        model: Alias, folder or Hub name.
        text: Text that the model reads as it is, without a chat template.
        layer: Index of a decoder layer, from 0.
        adapter: Folder of a Sparse-GIN adapter; None shows the graph of the default settings.
        strongest: Number of strongest edges to list.

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
        in_degrees=(others > 0).sum(1).tolist(),
        out_degrees=(others > 0).sum(0).tolist(),
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
    """Refuse a layer that the model does not have, or that has no adapter."""
    from llmctl.gin import SparseGinLayer

    there = sorted(module.layer_idx for module in model.modules() if isinstance(module, SparseGinLayer))
    if not there:
        raise UserError("the adapter is no Sparse-GIN adapter, so it has no graph: give a Sparse-GIN adapter")
    if layer not in there:
        known = f"0 to {there[-1]}" if there == list(range(len(there))) else ", ".join(map(str, there))
        raise UserError(f"--layer is {layer}, but there is a graph at layers {known}: choose one of these")


def _strongest(others: Any, count: int) -> list[GraphEdge]:
    values, places = others.flatten().sort(descending=True, stable=True)
    length = others.shape[0]
    return [
        GraphEdge(place // length, place % length, value)
        for value, place in zip(values[:count].tolist(), places[:count].tolist(), strict=True)
        if value > 0
    ]
