"""A small graph to test with."""

from llmctl.studies.attention_graph import GraphEdge, GraphView

VIEW = GraphView(
    layer=1,
    tokens=["a", " ", "$"],
    adjacency=[[0.9, 0.0, 0.0], [0.7, 0.9, 0.0], [0.0, 0.8, 0.9]],
    in_degrees=[0, 1, 1],
    out_degrees=[1, 1, 0],
    edges=[GraphEdge(2, 1, 0.8), GraphEdge(1, 0, 0.7)],
    density=2 / 3,
    mean_distance=1.0,
    scales={0: 0.0, 1: 0.5},
    graphs=1,
    adapter=None,
)
