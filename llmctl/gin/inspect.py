"""The graphs that a Sparse-GIN adapter builds from a text, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.gin.attention_inputs import visible_keys
from llmctl.gin.decoder_layer import SparseGinLayer
from llmctl.gin.graph import adjacency


@dataclass(frozen=True)
class LayerGraph:
    """The graph of one layer on one batch.

    Attributes:
        layer: Index of the decoder layer.
        scale: What the layer's contribution is multiplied by.
        edges: (B, G, T, T), row i receives messages of column j; 0 is no edge.
        visible: (B, T, T), True where token i may receive a message of token j at all.
    """

    layer: int
    scale: float
    edges: Tensor
    visible: Tensor

    def density(self) -> float:
        """Edges to other tokens, as a share of the pairs of different tokens that could have one.

        0 for texts of a single token, which have no such pair.
        """
        others = self._others()
        pairs = int(others.sum()) * self.edges.shape[1]
        return int((self.edges.gt(0) & others[:, None]).sum()) / pairs if pairs else 0.0

    def mean_distance(self) -> float:
        """Mean distance in tokens of edges to other tokens, weighted by edge; 0 without edges."""
        index = torch.arange(self.edges.shape[-1], device=self.edges.device)
        weights = self.edges * self._others()[:, None]
        total = weights.sum().item()
        return (weights * (index[:, None] - index)).sum().item() / total if total else 0.0

    def _others(self) -> Tensor:
        own = torch.eye(self.visible.shape[-1], dtype=torch.bool, device=self.visible.device)
        return self.visible & ~own


@torch.no_grad()
def adapter_graphs(model: nn.Module, adapter: str = "default", **inputs: Any) -> list[LayerGraph]:
    """Run a model on a batch and return its adapter's graphs.

    This is the only place that builds whole T x T graphs; it is meant for short texts.

    Args:
        model: A PEFT model with a Sparse-GIN adapter.
        adapter: Name of the adapter, which must be active.
        inputs: What the model is called with (`input_ids`, `attention_mask`, ...).

    Returns:
        One graph per layer that has the adapter, in the order of the layers.

    Raises:
        UserError: The model has no such adapter, or it is not active.
    """
    layers = [module for module in model.modules() if isinstance(module, SparseGinLayer)]
    layers = [layer for layer in layers if adapter in layer.gin_block]
    if not layers or adapter not in layers[0].active_adapters or layers[0].disable_adapters:
        raise UserError(
            f"the model has no active Sparse-GIN adapter {adapter!r}: add it, or activate it with set_adapter"
        )
    graphs: list[LayerGraph] = []
    hooks = [
        layer.gin_block[adapter].register_forward_pre_hook(_recorder(graphs, layer.layer_idx))
        for layer in layers
    ]
    try:
        model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return graphs


def _recorder(graphs: list[LayerGraph], layer: int) -> Callable[[Any, tuple[Any, ...]], None]:
    def record(gin: Any, args: tuple[Any, ...]) -> None:
        inputs = args[1]
        batch = inputs.query.shape[0]
        visible = visible_keys(inputs).any(1).expand(batch, -1, -1)
        graphs.append(LayerGraph(layer, float(gin.scale), adjacency(inputs, gin.rule, gin.mix), visible))

    return record
