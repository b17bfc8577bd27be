"""Message passing in whole models: earlier tokens send messages, later, padded or foreign ones never do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.gin.decoder_layer import SparseGinLayer
from llmctl.gin.graph import adjacency

from .tiny import FAMILIES, LAYERS, adapted, logits_of, pad_to, some_ids, visible_config


def record_call(model: Any, layer: int, ids: Tensor, **kwargs: Any) -> tuple[Any, Tensor, Any]:
    """The GIN of a layer, and the stream and attention inputs that it was called with."""
    blocks = [m.gin_block["default"] for m in model.modules() if isinstance(m, SparseGinLayer)]
    seen: list[Any] = []
    hook = blocks[layer].register_forward_pre_hook(lambda module, args: seen.extend(args))
    logits_of(model, ids, use_cache=False, **kwargs)
    hook.remove()
    return blocks[layer], seen[0], seen[1]


@torch.no_grad()
def who_moves(gin: Any, stream: Tensor, inputs: Any, token: int) -> Tensor:
    """(B, T), which tokens' GIN outputs change when one token's stream does and attention stays."""
    changed = stream.clone()
    changed[:, token] += 10
    return (gin(changed, inputs) != gin(stream, inputs)).any(-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("placement", ["before_mlp", "after_mlp", "parallel"])
def test_a_token_sends_messages_to_exactly_those_with_an_edge_to_it(family, placement):
    gin, stream, inputs = record_call(adapted(family, placement=placement), 1, some_ids())
    edges = adjacency(inputs, gin.rule)[:, 0]  # (B, T, T)
    links = edges[:, torch.ones(10, 10).tril(-1).bool()]
    assert links.gt(0).any() and not links.gt(0).all()
    for token in range(10):
        moved = who_moves(gin, stream, inputs, token)
        assert not moved[:, :token].any()
        assert torch.equal(moved[:, token + 1 :], edges[:, token + 1 :, token] > 0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("placement", ["before_mlp", "after_mlp", "parallel"])
def test_the_gin_reads_and_adds_to_the_stream_at_its_place(family, placement):
    model = adapted(family, placement=placement, layers=[0])
    layer = next(m for m in model.modules() if isinstance(m, SparseGinLayer))
    before_mlp: list[Tensor] = []
    after: list[Tensor] = []
    norm = getattr(layer.base_layer, layer._layout.mlp_start)
    hooks = [
        norm.register_forward_pre_hook(lambda module, args: before_mlp.append(args[0])),
        layer.base_layer.register_forward_hook(lambda module, args, output: after.append(output)),
    ]
    gin, stream, inputs = record_call(model, 0, some_ids())
    with torch.no_grad():
        delta = gin(stream, inputs)
    with model.disable_adapter():
        logits_of(model, some_ids(), use_cache=False)
    for hook in hooks:
        hook.remove()
    assert delta.abs().max() > 0.1
    if placement == "before_mlp":  # h + delta is what the MLP branch starts from
        torch.testing.assert_close(stream, before_mlp[1])
        torch.testing.assert_close(before_mlp[0], stream + delta)
    elif placement == "parallel":  # the MLP branch is that of the base model, and delta comes on top
        torch.testing.assert_close(stream, before_mlp[1])
        torch.testing.assert_close(after[0], after[1] + delta)
    else:  # the GIN starts from the whole layer's output
        torch.testing.assert_close(stream, after[1])
        torch.testing.assert_close(after[0], stream + delta)


def test_a_later_adapter_reads_what_an_earlier_one_added():
    model = adapted(layers=[0])
    model.add_adapter("late", visible_config(placement="parallel", layers=[0]))
    model.base_model.set_adapter(["default", "late"])
    layer = next(m for m in model.modules() if isinstance(m, SparseGinLayer))
    streams: list[Tensor] = []
    for block in layer.gin_block.values():
        block.register_forward_hook(lambda module, args, delta: streams.extend([args[0], delta]))
    logits_of(model, some_ids(), use_cache=False)
    torch.testing.assert_close(streams[2], streams[0] + streams[1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_sends_no_message_to_another_token(side):
    ids, mask = pad_to([some_ids(1, 6)[0], some_ids(1, 9, seed=1)[0]], side)
    gin, stream, inputs = record_call(adapted(), 0, ids, attention_mask=mask)
    for token in range(3) if side == "left" else range(6, 9):
        moved = who_moves(gin, stream, inputs, token)[0]
        assert moved.nonzero().flatten().tolist() in ([], [token])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_token_changes_its_own_and_later_logits_only(family, implementation):
    model = adapted(family, depth=2)
    model.set_attn_implementation(implementation)
    ids = some_ids()
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 5) % 60 + 3
    moved = (logits_of(model, changed) - logits_of(model, ids)).abs().amax(-1)
    assert moved[:, :4].max() == 0 and moved[:, 4:].min() > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_has_the_logits_of_each_sequence_alone(family, side):
    model = adapted(family, depth=2, top_fraction=0.7, distance_scale=5.0)
    rows = [some_ids(1, 6)[0], some_ids(1, 9, seed=1)[0]]
    ids, mask = pad_to(rows, side)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    batched = logits_of(model, ids, attention_mask=mask, position_ids=positions)
    for i, row in enumerate(rows):
        torch.testing.assert_close(
            batched[i][mask[i].bool()], logits_of(model, row[None])[0], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sequences_exchange_no_messages(family):
    model = adapted(family, depth=2)
    first, second = some_ids(1, 5), some_ids(1, 7, seed=1)
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    packed = logits_of(model, torch.cat([first, second], 1), position_ids=positions, use_cache=False)
    torch.testing.assert_close(packed[:, :5], logits_of(model, first), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed[:, 5:], logits_of(model, second), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_sdpa_and_eager_give_the_same_logits(family):
    softcap_is_eager_only = {"base": {"attn_logit_softcapping": None}} if family == "gemma2" else {}
    model = adapted(family, **softcap_is_eager_only)
    ids, mask = pad_to([some_ids(1, 6)[0], some_ids(1, 9, seed=1)[0]], "left")
    results = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        results.append(logits_of(model, ids, attention_mask=mask)[mask.bool()])
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heads", ["sum", "mean", "mix", "any", "each"])
def test_every_merge_of_heads_runs_in_a_model(heads):
    base = logits_of(adapted(scale_first=0.0, scale_last=0.0), some_ids())
    assert not torch.allclose(logits_of(adapted(heads=heads), some_ids()), base)


def test_only_the_named_layers_get_a_gin():
    model = adapted(layers=[2])
    wrapped = [name for name, m in model.named_modules() if isinstance(m, SparseGinLayer)]
    assert wrapped == [f"base_model.model.model.layers.{LAYERS - 1}"]
