import pytest
import torch

from llmctl.reach.scoring.records import BLANK, Meter, reduce_logits


def test_loss_hit_and_margin_of_a_row_by_hand():
    logits = torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]])
    loss, is_hit, margin = reduce_logits(logits, torch.tensor([1, 0]))
    expected = -(logits[0, 0].log_softmax(0)[1] + logits[0, 1].log_softmax(0)[0]) / 2
    assert float(loss) == pytest.approx(float(expected))
    assert bool(is_hit) and float(margin) == pytest.approx(1.0)  # 2 - 1, the lesser of two margins
    _, is_hit, margin = reduce_logits(logits, torch.tensor([2, 0]))
    assert not bool(is_hit) and float(margin) == pytest.approx(-1.0)


def test_a_target_that_has_ended_is_left_out():
    logits = torch.tensor([[[0.0, 2.0], [9.0, 0.0]]])
    loss, is_hit, _ = reduce_logits(logits, torch.tensor([[1, BLANK]]))
    assert float(loss) == pytest.approx(float(-logits[0, 0].log_softmax(0)[1])) and bool(is_hit)


def test_a_backward_pass_counts_its_tokens_twice_over():
    meter = Meter()
    meter.add(2, 10)
    meter.add(1, 5, is_backward=True)
    assert meter == Meter(3, 15, 5)
