import pytest
import torch

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule, adjacency
from llmctl.gin.layer import GinShape, GroupedLinear, SparseGin

LOOSE = GraphRule(epsilon=0.3)


def some_inputs(heads: int = 4) -> AttentionInputs:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, heads, 5, 8, generator=generator) * 2
    return AttentionInputs.build(query, torch.randn(1, 2, 5, 8, generator=generator), None, None)


def a_gin(
    scale: float = 1.0, rule: GraphRule = LOOSE, train_scale: bool = True, **shape: object
) -> SparseGin:
    torch.manual_seed(0)
    sizes: dict = {"hidden": 16, "width": 8, "depth": 1} | shape
    return SparseGin(GinShape(**sizes), rule, scale, train_scale, detach_graph=False).eval()


STREAM = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))


def test_the_output_follows_the_equations_token_by_token():
    gin, inputs = a_gin(scale=0.7), some_inputs()
    gin_round = gin.rounds[0]
    torch.nn.init.constant_(gin_round.eps, 0.3)
    edges, nodes = adjacency(inputs, LOOSE)[0, 0], gin.down(STREAM)[0]
    expected = []
    for i in range(5):
        z = 0.3 * nodes[i] + sum(edges[i, j] * nodes[j] for j in range(i + 1))
        inner = gin_round.inner_act(gin_round.inner.weight[0] @ z + gin_round.inner.bias)
        updated = gin_round.outer_act(z + gin_round.outer.weight[0] @ inner + gin_round.outer.bias)
        up = gin.up(updated)
        expected.append(0.7 * up / (up.square().mean() + 1e-6).sqrt())
    torch.testing.assert_close(gin(STREAM, inputs)[0], torch.stack(expected))


def test_a_scale_of_zero_adds_exactly_nothing():
    assert torch.equal(STREAM + a_gin(scale=0.0)(STREAM, some_inputs()), STREAM)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_perturbed_token_reaches_later_tokens_with_an_edge_and_no_earlier_token(depth):
    gin, inputs = a_gin(depth=depth), some_inputs()
    changed = STREAM.clone()
    changed[:, 2] += 10
    moved = (gin(changed, inputs) - gin(STREAM, inputs)).abs().amax(-1)[0]
    assert moved[:2].eq(0).all() and moved[2] > 0
    if depth == 1:
        edges = adjacency(inputs, LOOSE)[0, 0, 3:, 2]
        assert edges.gt(0).any() and torch.equal(moved[3:] > 0, edges > 0)


def test_self_loops_alone_are_the_ablation_without_messages_between_tokens():
    gin, inputs = a_gin(rule=GraphRule(epsilon=0.3, self_loops="only")), some_inputs()
    changed = STREAM.clone()
    changed[:, 1] += 10
    moved = (gin(changed, inputs) - gin(STREAM, inputs)).abs().amax(-1)[0]
    assert moved[1] > 0 and moved[[0, 2, 3, 4]].eq(0).all()


def test_a_graph_a_head_keeps_the_heads_apart():
    gin = a_gin(rule=GraphRule(heads="each", epsilon=0.3), graphs=4)
    nodes, messages = torch.randn(2, 1, 5, 8)
    changed = messages.clone()
    changed[..., 2:4] += 1  # the messages of head 1
    moved = (gin.rounds[0](nodes, changed) - gin.rounds[0](nodes, messages)).abs().amax((0, 1))
    assert moved[2:4].gt(0).all() and moved[:2].eq(0).all() and moved[4:].eq(0).all()


def test_grouped_maps_equal_separate_linear_maps():
    grouped, nodes = GroupedLinear(2, 8), torch.randn(1, 3, 8)
    parts = [nodes[..., 4 * g : 4 * g + 4] @ grouped.weight[g].T for g in range(2)]
    torch.testing.assert_close(grouped(nodes), torch.cat(parts, -1) + grouped.bias)


def test_gradients_reach_every_parameter_and_the_graph():
    gin = a_gin(rule=GraphRule(heads="mix", epsilon=0.1), mixed_heads=4)
    torch.nn.init.normal_(gin.mix.outer.weight)
    inputs = some_inputs()
    inputs.query.requires_grad_()
    (gin(STREAM, inputs) * torch.randn_like(STREAM)).sum().backward()
    assert [name for name, p in gin.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert inputs.query.grad.any()


def test_a_detached_graph_gives_no_gradient_to_queries():
    gin = a_gin()
    gin.detach_graph = True
    inputs = some_inputs()
    inputs.query.requires_grad_()
    gin(STREAM, inputs).sum().backward()
    assert inputs.query.grad is None and gin.down.weight.grad.any()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"depth": 3, "norm": "layer"},
        {"graphs": 4, "norm": "none", "activation": "silu"},
        {"mixed_heads": 4, "mix_width": 5, "activation": "gelu"},
    ],
)
@pytest.mark.parametrize("train_scale", [True, False])
def test_the_number_of_parameters_is_known_in_advance(shape, train_scale):
    gin = a_gin(train_scale=train_scale, **shape)
    assert gin.shape.parameters(train_scale) == sum(p.numel() for p in gin.parameters())
