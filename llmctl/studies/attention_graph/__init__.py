"""The graph that Sparse-GIN builds from a text at one layer: as data, and as plots."""

from llmctl.studies.attention_graph.build import MAX_TOKENS, view_graph
from llmctl.studies.attention_graph.plots import FORMATS, write_plots
from llmctl.studies.attention_graph.record import GraphEdge, GraphView, show_token

__all__ = ["FORMATS", "MAX_TOKENS", "GraphEdge", "GraphView", "show_token", "view_graph", "write_plots"]
