"""The graph of one layer on one text, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GraphEdge:
    """An edge between two different tokens, which are given by position."""

    receiver: int
    """The later token, which receives the message."""
    sender: int
    """The earlier token, which the receiver attends to."""
    weight: float


@dataclass(frozen=True)
class GraphView:
    """The graph of one layer on one text. Where each head has a graph, they are averaged."""

    layer: int
    """Index of the decoder layer."""
    tokens: list[str]
    adjacency: list[list[float]]
    """(T, T): row i receives messages of column j; 0 is no edge."""
    in_degrees: list[int]
    """Number of earlier tokens that each token receives messages from, itself not counted."""
    out_degrees: list[int]
    """Number of later tokens that each token sends messages to."""
    edges: list[GraphEdge]
    """The strongest edges between different tokens, in descending order of weight."""
    density: float
    """Edges between different tokens, as a share of the pairs that could have one."""
    mean_distance: float
    """Mean distance of edges in tokens, weighted by edge."""
    scales: dict[int, float]
    """Factor on the contribution of each layer, by layer index."""
    graphs: int
    """1, or the number of heads."""
    adapter: str | None
    """Folder of the adapter; None is the default settings on the base model, whose scale is 0."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, edges with the text of both tokens. The keys are those of the JSON file."""
        edges = [
            {
                "hears": edge.receiver,
                "heard": edge.sender,
                "text": [self.tokens[edge.receiver], self.tokens[edge.sender]],
                "weight": edge.weight,
            }
            for edge in self.edges
        ]
        return {
            "layer": self.layer,
            "tokens": self.tokens,
            "adjacency": self.adjacency,
            "hears": self.in_degrees,
            "heard_by": self.out_degrees,
            "edges": edges,
            "density": self.density,
            "mean_distance": self.mean_distance,
            "scales": {str(layer): scale for layer, scale in self.scales.items()},
            "graphs": self.graphs,
            "adapter": self.adapter,
        }


def show_token(token: str) -> str:
    """A token on one line, with marks for spaces and line breaks."""
    return token.replace("\n", "↵").replace(" ", "·") or "∅"
