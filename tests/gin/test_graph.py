import math

import pytest
import torch
from torch import Tensor
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from llmctl.errors import UserError
from llmctl.gin.attention_inputs import AttentionInputs, attention_weights, visible_keys
from llmctl.gin.graph import GraphRule, adjacency, keep_top, merge_heads
from llmctl.gin.layer import HeadMix
from llmctl.gin.messages import row_blocks, send_messages

PLAIN = GraphRule(sharpness=None, epsilon=0.0)


def random_inputs(
    queries: int = 6, keys: int = 6, heads: int = 4, mask: Tensor | None = None
) -> AttentionInputs:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, queries, 8, generator=generator) * 2
    key = torch.randn(2, 2, keys, 8, generator=generator)
    return AttentionInputs.build(query, key, mask, scaling=0.5)


def uniform_inputs(length: int = 4, mask: Tensor | None = None) -> AttentionInputs:
    """Zero queries: each token attends to each visible token alike, in one head."""
    return AttentionInputs.build(
        torch.zeros(1, 1, length, 2), torch.ones(1, 1, length, 2), mask, scaling=None
    )


def test_weights_equal_eager_attention_with_grouped_heads_and_softcap():
    causal = torch.full((6, 6), torch.finfo(torch.float32).min).triu(1)[None, None]
    inputs = AttentionInputs.build(random_inputs().query, random_inputs().key, causal, 0.5, softcap=3.0)
    layer = torch.nn.Module()
    layer.num_key_value_groups = 2
    value = torch.zeros_like(inputs.key)
    _, expected = eager_attention_forward(
        layer, inputs.query, inputs.key, value, causal, scaling=0.5, softcap=3.0
    )
    torch.testing.assert_close(attention_weights(inputs, visible_keys(inputs)), expected)


def test_no_mask_boolean_mask_and_additive_mask_give_the_same_weights():
    plain = random_inputs()
    visible = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    additive = torch.zeros(1, 1, 6, 6).masked_fill(~visible, torch.finfo(torch.float32).min)
    expected = attention_weights(plain, visible_keys(plain))
    for mask in (visible, additive):
        inputs = random_inputs(mask=mask)
        torch.testing.assert_close(attention_weights(inputs, visible_keys(inputs)), expected)


def test_later_tokens_send_no_message_even_where_the_mask_allows_it():
    inputs = random_inputs(mask=torch.ones(1, 1, 6, 6, dtype=torch.bool))
    assert torch.equal(adjacency(inputs, PLAIN), adjacency(inputs, PLAIN).tril())


@pytest.mark.parametrize("sharpness", [10.0, None])
def test_a_token_that_sees_nothing_has_no_edges(sharpness):
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    mask[..., 0] = False  # token 0 is padding
    edges = adjacency(uniform_inputs(mask=mask), GraphRule(sharpness=sharpness, epsilon=0.0))
    assert edges[0, 0, 0].eq(0).all() and edges[0, 0, :, 0].eq(0).all()
    assert edges[0, 0, 3, 1:].gt(0).all()


def test_uniform_attention_is_sharpened_and_thresholded_as_computed_by_hand():
    # Row i attends 1/(i+1) to each; sigmoid(10 (a - 0.3)) for a = 1, 1/2, 1/3, 1/4:
    rows = [1 / (1 + math.exp(-10 * (1 / (i + 1) - 0.3))) for i in range(4)]
    assert rows[2] > 0.5 > rows[3]
    edges = adjacency(uniform_inputs(), GraphRule(sharpness=10, threshold=0.3, epsilon=0.5))
    expected = torch.tensor([rows[0], rows[1], rows[2], 0.0])[:, None].expand(4, 4).tril()
    torch.testing.assert_close(edges[0, 0], expected)


def test_heads_merge_as_their_names_say():
    weights = torch.tensor([[[[0.5]], [[0.25]], [[0.75]]]])  # (1, 3 heads, 1, 1)
    assert merge_heads(weights, "sum").item() == 1.0  # 1.5 clamped
    assert merge_heads(weights * 0.5, "sum").item() == 0.75
    assert merge_heads(weights, "mean").item() == 0.5
    assert merge_heads(weights, "any").item() == 0.75
    assert merge_heads(weights, "each").shape == (1, 3, 1, 1)


def test_the_learned_mix_starts_as_the_mean_and_gives_no_edge_without_attention():
    mix = HeadMix(4, 8)
    weights = attention_weights(random_inputs(), visible_keys(random_inputs()))
    torch.testing.assert_close(merge_heads(weights, "mix", mix), weights.mean(1, keepdim=True))
    torch.nn.init.normal_(mix.outer.weight)
    mixed = merge_heads(weights, "mix", mix)
    assert torch.equal(mixed, mixed.tril()) and not torch.allclose(mixed, weights.mean(1, keepdim=True))


def test_self_loops_can_be_dropped_or_be_all_that_is_left():
    whole = adjacency(random_inputs(), PLAIN)
    diagonal = torch.eye(6)
    for self_loops, expected in (("drop", whole * (1 - diagonal)), ("only", whole * diagonal)):
        rule = GraphRule(sharpness=None, epsilon=0.0, self_loops=self_loops)
        torch.testing.assert_close(adjacency(random_inputs(), rule), expected)


def test_a_top_fraction_keeps_the_ceiling_of_its_share_of_visible_tokens():
    edges = torch.tensor([[0.9, 0, 0, 0], [0.2, 0.7, 0, 0], [0.1, 0.3, 0.2, 0], [0.1, 0.4, 0.2, 0.3]])[
        None, None
    ]
    visible = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    kept = keep_top(edges, visible, 0.5)  # 1, 1, 2 and 2 edges
    expected = torch.tensor([[0.9, 0, 0, 0], [0, 0.7, 0, 0], [0, 0.3, 0.2, 0], [0, 0.4, 0, 0.3]])
    torch.testing.assert_close(kept[0, 0], expected)


def test_edges_can_be_binary_and_can_fade_with_distance():
    binary = adjacency(uniform_inputs(), GraphRule(sharpness=None, epsilon=0.0, edge_weights=False))
    torch.testing.assert_close(binary[0, 0], torch.ones(4, 4).tril())
    rule = GraphRule(sharpness=None, epsilon=0.0, edge_weights=False, distance_scale=2.0)
    faded = adjacency(uniform_inputs(), rule)[0, 0]
    expected = [math.exp(-3 / 2), math.exp(-2 / 2), math.exp(-1 / 2), 1.0]  # last token, farthest first
    torch.testing.assert_close(faded[3], torch.tensor(expected))


@pytest.mark.parametrize("heads", ["sum", "mean", "any", "each", "mix"])
def test_messages_are_the_sum_over_earlier_neighbours(heads):
    inputs, mix = random_inputs(), HeadMix(4, 8)
    nodes = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(1))
    rule = GraphRule(heads=heads, epsilon=0.3)
    edges = adjacency(inputs, rule, mix)
    messages = torch.zeros_like(nodes)
    part = 12 // edges.shape[1]
    for i in range(6):
        for j in range(i + 1):
            for g in range(edges.shape[1]):
                piece = slice(g * part, (g + 1) * part)
                messages[:, i, piece] += edges[:, g, i, j, None] * nodes[:, j, piece]
    torch.testing.assert_close(send_messages(inputs, rule, nodes, mix), messages)


@pytest.mark.parametrize("heads", ["sum", "mean", "any", "each", "mix"])
def test_small_blocks_give_the_same_messages_and_gradients_as_one(heads):
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    mask[0, :, :, :2] = False
    rule = GraphRule(heads=heads, epsilon=0.3, top_fraction=0.6)
    results = []
    for block in (1 << 24, 2 * 4 * 6 * 2, 1):  # all rows, two rows, one row at a time
        torch.manual_seed(0)
        mix = HeadMix(4, 8)
        torch.nn.init.normal_(mix.outer.weight, std=0.1)
        inputs = random_inputs(mask=mask)
        inputs.query.requires_grad_()
        nodes = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = send_messages(inputs, rule, nodes, mix, block)
        out.square().sum().backward()
        results.append((out, nodes.grad, inputs.query.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])
    assert results[0][2].abs().sum() > 0


def test_blocks_cover_every_row_once():
    assert list(row_blocks(random_inputs(), 2 * 4 * 6 * 4)) == [(0, 4), (4, 6)]


def test_new_tokens_over_cached_keys_have_the_last_rows_of_the_whole_graph():
    whole = random_inputs()
    last = AttentionInputs.build(whole.query[:, :, 4:], whole.key, None, 0.5)
    rule = GraphRule(epsilon=0.3, distance_scale=3.0, self_loops="drop", top_fraction=0.5)
    torch.testing.assert_close(adjacency(last, rule), adjacency(whole, rule)[:, :, 4:])


def test_more_queries_than_keys_are_refused():
    with pytest.raises(UserError, match="6 queries and 4 keys.*every query among the keys"):
        random_inputs(queries=6, keys=4)
