import math

import torch

from llmctl.gin.edges import EdgeRule, keep_flow, keep_top_k, threshold_edges, weigh

ROW = torch.tensor([[[[0.5, 0.1, 0.25, 0.15]]]])
ALL = torch.ones(1, 1, 1, 4, dtype=torch.bool)


def test_softmax_weights_sum_to_one_over_what_is_visible():
    visible = torch.tensor([True, True, False, True])[None, None, None]
    weights = weigh(torch.zeros(1, 1, 1, 4), visible, "softmax")
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([1 / 3, 1 / 3, 0, 1 / 3]))


def test_softplus_weights_are_those_of_beta_ten():
    weights = weigh(torch.tensor([[[[0.2, -0.1, 0.0, 3.0]]]]), ALL, "softplus")
    expected = [math.log1p(math.exp(10 * s)) / 10 for s in (0.2, -0.1, 0.0, 3.0)]
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor(expected))


def test_the_soft_threshold_is_a_sigmoid_and_hides_what_is_hidden():
    visible = torch.tensor([True, True, True, False])[None, None, None]
    edges = threshold_edges(ROW, visible, EdgeRule(threshold_mode="soft", threshold=0.25, slope=4.0))
    expected = torch.sigmoid(4 * (ROW - 0.25)) * visible
    torch.testing.assert_close(edges, expected)


def test_the_binary_threshold_passes_the_gradient_straight_through():
    weights = ROW.clone().requires_grad_()
    edges = threshold_edges(weights, ALL, EdgeRule(threshold_mode="binary", threshold=0.2))
    assert edges.flatten().tolist() == [1, 0, 1, 0]
    (edges * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert weights.grad.flatten().tolist() == [1, 2, 3, 4]


def test_top_k_keeps_the_heaviest_and_everything_where_there_are_fewer():
    assert keep_top_k(ROW, 2).flatten().gt(0).tolist() == [True, False, True, False]
    assert torch.equal(keep_top_k(ROW, 9), ROW)


def test_flow_keeps_the_fewest_edges_that_carry_the_share():
    # Heaviest first: 0.5, 0.25 (0.75), 0.15 (0.9), 0.1 (1.0)
    for share, kept in ((0.4, [1, 0, 0, 0]), (0.7, [1, 0, 1, 0]), (0.8, [1, 0, 1, 1]), (1.0, [1, 1, 1, 1])):
        assert keep_flow(ROW, share).flatten().gt(0).int().tolist() == kept
