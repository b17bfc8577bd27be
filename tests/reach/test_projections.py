import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.reach.projections import norm_gain, projection, spectral_norm


def test_a_linear_layer_is_read_off_its_answers():
    linear = nn.Linear(5, 3)
    weight, bias = projection(SimpleNamespace(k_proj=linear), "k")
    torch.testing.assert_close(weight, linear.weight.detach())
    torch.testing.assert_close(bias, linear.bias.detach())


def test_a_fused_projection_is_cut_in_three():
    from transformers.pytorch_utils import Conv1D

    fused = Conv1D(6, 2)  # (2, 6): queries, keys and values of width 2
    weight, _ = projection(SimpleNamespace(c_attn=fused), "k")
    torch.testing.assert_close(weight, fused.weight.detach().T[2:4])


def test_a_module_without_projections_is_refused():
    with pytest.raises(UserError, match="has no q_proj"):
        projection(SimpleNamespace(), "q")


def test_the_spectral_norm_is_the_largest_singular_value():
    weight = torch.tensor([[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]])
    assert spectral_norm(weight) == pytest.approx(4.0)


def test_a_norm_gives_gain_times_a_vector_no_longer_than_root_d():
    norm = nn.LayerNorm(4)
    norm.weight.data, norm.bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0, 0, 0])
    gain, offset = norm_gain(norm)
    z = (norm(torch.randn(1, 4)) - offset) / gain
    assert float(z.detach().norm()) <= math.sqrt(4) + 1e-4
    gain, offset = norm_gain(nn.RMSNorm(4, eps=0.0))
    assert gain.tolist() == pytest.approx([1.0] * 4) and offset.tolist() == [0.0] * 4
