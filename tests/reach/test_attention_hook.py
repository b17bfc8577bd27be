import pytest
import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.reach.attention_hook import attention_of


def test_the_attention_of_the_last_token_gives_the_heads_output(small_model):
    seen = {}
    o_proj = small_model.model.layers[0].self_attn.o_proj
    handle = o_proj.register_forward_pre_hook(lambda _, args: seen.update(output=args[0][0, -1]))
    layers = attention_of(small_model, [5, 17, 3])
    handle.remove()
    first = layers[0]
    weights = first.logits.softmax(-1)  # (H, T)
    output = (weights[:, None] @ first.values)[:, 0].flatten()
    torch.testing.assert_close(output, seen["output"], atol=1e-5, rtol=1e-4)
    assert len(layers) == 2 and first.groups == 2 and first.logits.shape == (4, 3)


def test_the_model_is_left_as_it_was(small_model):
    before, ids = small_model.config._attn_implementation, torch.tensor([[5, 17, 3]])
    expected = small_model(ids).logits
    attention_of(small_model, [5, 17, 3])
    assert small_model.config._attn_implementation == before
    assert torch.equal(small_model(ids).logits, expected)
    assert not any(m._forward_pre_hooks for m in small_model.modules())


def test_a_model_without_a_norm_in_front_is_refused(small_model, monkeypatch):
    layer = small_model.model.layers[0]
    norm = layer.input_layernorm
    del layer.input_layernorm
    layer.other_norm = norm
    monkeypatch.setattr(type(layer), "input_layernorm", lambda _, x: x, raising=False)
    try:
        with pytest.raises(UserError, match="has no norm in front"):
            attention_of(small_model, [5, 17])
    finally:
        monkeypatch.undo()
        del layer.other_norm
        layer.input_layernorm = norm
    assert isinstance(layer.input_layernorm, nn.Module)
