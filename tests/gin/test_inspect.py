import pytest
import torch

from llmctl.errors import UserError
from llmctl.gin import LayerGraph, adapter_graphs

from .tiny import adapted, logits_of, pad_to, some_ids, tiny_model


def test_graphs_are_those_that_the_adapter_used():
    model, (ids, mask) = adapted(layers=[0, 2]), pad_to([some_ids(1, 4)[0], some_ids(1, 7)[0]], "left")
    before = logits_of(model, ids, attention_mask=mask)
    graphs = adapter_graphs(model, input_ids=ids, attention_mask=mask)
    assert [g.layer for g in graphs] == [0, 2] and [g.scale for g in graphs] == [0.5, 1.0]
    for graph in graphs:
        assert graph.edges.shape == (2, 1, 7, 7) and torch.equal(graph.edges, graph.edges.tril())
        assert graph.edges[0, :, :3].eq(0).all() and graph.edges[0, :, :, :3].eq(0).all()
        assert 0 < graph.density() < 1 and graph.mean_distance() >= 1
    assert torch.equal(logits_of(model, ids, attention_mask=mask), before)


def test_density_and_distance_are_those_computed_by_hand():
    edges = torch.tensor([[1.0, 0, 0], [0.5, 1.0, 0], [0.25, 0, 1.0]])[None, None]
    graph = LayerGraph(0, 1.0, edges, torch.ones(1, 3, 3, dtype=torch.bool).tril())
    assert graph.density() == pytest.approx(2 / 3)
    assert graph.mean_distance() == pytest.approx((0.5 * 1 + 0.25 * 2) / 0.75)


def test_a_model_without_the_adapter_is_refused():
    model = adapted()
    for wrong, name in ((tiny_model(), "default"), (model, "other")):
        with pytest.raises(UserError, match=f"no active Sparse-GIN adapter '{name}'"):
            adapter_graphs(wrong, name, input_ids=some_ids())
    with model.disable_adapter(), pytest.raises(UserError, match="no active"):
        adapter_graphs(model, input_ids=some_ids())
