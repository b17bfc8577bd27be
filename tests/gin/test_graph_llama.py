from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from llmctl.errors import UserError
from llmctl.gin import GinAttention, GraphLlamaConfig, GraphLlamaForCausalLM, PnaAttention
from llmctl.gin.attention import pna_aggregates

from .tiny import HEADS, HIDDEN, PAD, VOCAB, logits_of, pad_to, some_ids

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sharpened": {"graph_sharpening": True, "graph_mlp_multiplier": 0.5},
    "softplus": {"graph_weights": "softplus"},
    "soft": {"graph_threshold_mode": "soft"},
    "binary": {"graph_threshold_mode": "binary", "graph_threshold": 0.2},
    "top-k": {"graph_threshold_mode": "top_k", "graph_top_k": 2},
    "flow": {"graph_threshold_mode": "flow", "graph_threshold": 0.6},
    "differential": {"graph_differential": True, "graph_sharpening": True},
    "blend": {"graph_blend": True, "graph_differential": True},
}
KINDS = ["gin", "pna"]


def tiny(kind: str = "gin", seed: int = 0, **changes: Any) -> GraphLlamaForCausalLM:
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "pad_token_id": PAD,
        "eos_token_id": None,
    }
    torch.manual_seed(seed)
    return GraphLlamaForCausalLM(GraphLlamaConfig(**(sizes | changes), graph_attention=kind)).eval()


def first_attention(model: GraphLlamaForCausalLM) -> Any:
    return model.model.layers[0].self_attn


def call_attention(model: GraphLlamaForCausalLM, hidden: Tensor) -> tuple[Tensor, Tensor]:
    length = hidden.shape[1]
    rotary = model.model.rotary_emb(hidden, torch.arange(length)[None])
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    return first_attention(model)(hidden, rotary, mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_changed_token_changes_its_own_and_later_logits_only(kind, option):
    model, ids = tiny(kind, **OPTIONS[option]), some_ids()
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 5) % 60 + 3
    moved = (logits_of(model, changed) - logits_of(model, ids)).abs().amax(-1)
    assert moved[:, :4].max() == 0 and moved[:, 4].min() > 0 and moved[:, 5:].max() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_cache_gives_the_same_tokens_in_a_left_padded_batch(kind, option):
    model = tiny(kind, **OPTIONS[option])
    ids, mask = pad_to([some_ids(1, 3)[0], some_ids(1, 7, seed=1)[0]], "left")
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    cached = model.generate(input_ids=ids, **settings)
    assert torch.equal(cached, model.generate(input_ids=ids, use_cache=False, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_beam_search_with_a_cache_gives_the_same_tokens(kind):
    model, ids = tiny(kind, graph_blend=True), some_ids(2, 5)
    settings: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    settings["attention_mask"] = torch.ones_like(ids)
    cached = model.generate(input_ids=ids, **settings)
    assert torch.equal(cached, model.generate(input_ids=ids, use_cache=False, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_has_the_logits_of_each_sequence_alone(kind):
    model, rows = tiny(kind), [some_ids(1, 4)[0], some_ids(1, 7, seed=1)[0]]
    ids, mask = pad_to(rows, "left")
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    batched = logits_of(model, ids, attention_mask=mask, position_ids=positions)
    for i, row in enumerate(rows):
        torch.testing.assert_close(
            batched[i][mask[i].bool()], logits_of(model, row[None])[0], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("kv_heads", [2, HEADS])
def test_a_static_cache_is_refused(kv_heads):
    ids = some_ids(1, 4)
    with pytest.raises(UserError, match="StaticCache.*DynamicCache only"):
        tiny(num_key_value_heads=kv_heads).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=2,
            cache_implementation="static",
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_by_the_auto_classes_with_identical_logits(kind, tmp_path):
    model = tiny(kind, **OPTIONS["blend"])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is GraphLlamaForCausalLM
    assert torch.equal(logits_of(loaded, some_ids()), logits_of(model, some_ids()))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.edge_rule() == model.config.edge_rule() and config.graph_attention == kind
    bare = AutoModel.from_pretrained(tmp_path)(some_ids()).last_hidden_state
    torch.testing.assert_close(model.lm_head(bare), logits_of(model, some_ids()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_training_lowers_the_loss_and_reaches_every_parameter(kind, option):
    model, ids = tiny(kind, **OPTIONS[option]).train(), some_ids(4, 12)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients(kind):
    gradients = []
    for checkpointing in (False, True):
        model = tiny(kind).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=some_ids(), labels=some_ids(), use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_gin_attention_is_the_mlp_over_summed_neighbours_of_the_paper():
    model, hidden = tiny(graph_sharpening=True), torch.randn(1, 5, HIDDEN)
    attention = first_attention(model)
    assert isinstance(attention, GinAttention)
    for parameter in (attention.eps, attention.log_sharpness, attention.in_bias):
        nn.init.normal_(parameter)
    out, _ = call_attention(model, hidden)
    rotary = model.model.rotary_emb(hidden, torch.arange(5)[None])
    query, key = (p(hidden).view(1, 5, -1, 8).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    scores = query @ repeat_kv(key, 2).transpose(2, 3) / 8**0.5 * attention.log_sharpness.exp()
    weights = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
    for head in range(HEADS):
        summed = weights[0, head] @ hidden[0] + attention.eps[head] * hidden[0]  # over the whole input
        first = attention.in_proj.weight[head * 8 : head * 8 + 8]
        inner = summed @ first.T + attention.in_bias[head]
        normed = inner / (inner.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.norm_weight[head]
        expected = nn.functional.silu(normed) @ attention.out_proj.weight[head]
        torch.testing.assert_close(out[0, :, head * 8 : head * 8 + 8], expected)


def test_pna_aggregates_are_those_computed_by_hand():
    nodes = torch.tensor([[2.0, -1.0], [4.0, 1.0], [6.0, 5.0]])[None, None]  # (1, 1, 3 tokens, 2)
    edges = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])[None, None]
    mean, highest, lowest, deviation = pna_aggregates(edges, nodes)[0, 0].split(2, dim=-1)
    torch.testing.assert_close(mean, torch.tensor([[2.0, -1.0], [3.0, 0.0], [5.5, 4.0]]))
    torch.testing.assert_close(highest, torch.tensor([[1.0, -0.5], [2.0, 0.5], [4.5, 3.75]]))
    torch.testing.assert_close(lowest, torch.tensor([[1.0, -0.5], [1.0, -0.5], [1.0, 0.25]]))
    spread = torch.tensor(
        [[0.0, 0.0], [1.0, 1.0], [0.75**0.5, 3**0.5]]
    )  # of (2,4); of (4,6,6,6) and (1,5,5,5)
    torch.testing.assert_close(deviation, (spread.square() + 1e-5).sqrt())


def test_pna_aggregates_do_not_depend_on_the_block_and_are_zero_without_neighbours():
    generator = torch.Generator().manual_seed(0)
    edges = torch.rand(2, 3, 5, 5, generator=generator).tril(-1)  # the first token receives no message
    nodes = torch.randn(2, 3, 5, 4, generator=generator)
    whole = pna_aggregates(edges, nodes)
    torch.testing.assert_close(pna_aggregates(edges, nodes, block_elements=1), whole)
    assert whole[:, :, 0, :12].eq(0).all() and whole.isfinite().all()


@torch.no_grad()
def test_pna_scalers_are_one_at_the_reference_degree_and_inverse_to_each_other():
    model = tiny("pna", pna_reference_degree=2.0)
    attention = first_attention(model)
    assert isinstance(attention, PnaAttention)
    seen: list[Tensor] = []
    attention.agg_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    call_attention(model, torch.randn(1, 5, HIDDEN))
    _, *scaled = seen[0].split([8, 32, 32, 32], dim=-1)
    identity, amplified, attenuated = scaled
    torch.testing.assert_close(amplified[:, :, 1], identity[:, :, 1])  # the second token has degree 2
    torch.testing.assert_close(amplified * attenuated, identity.square())
    ratio = torch.log(torch.tensor(6.0)) / torch.log(torch.tensor(3.0))  # the last of 5 has degree 5
    torch.testing.assert_close(amplified[:, :, 4], identity[:, :, 4] * ratio)


def test_a_blend_of_no_graph_is_plain_attention():
    model, hidden = tiny(graph_blend=True), torch.randn(1, 5, HIDDEN)
    attention = first_attention(model)
    nn.init.constant_(attention.blend_logit, -50.0)
    out, weights = call_attention(model, hidden)
    values = attention.v_proj(hidden).view(1, 5, HEADS, 8).transpose(1, 2)
    torch.testing.assert_close(out, (weights @ values).transpose(1, 2).flatten(2))


def test_attentions_are_the_edges():
    ids = some_ids(1, 6)
    edges = tiny(graph_threshold_mode="top_k", graph_top_k=2)(ids, output_attentions=True).attentions
    assert len(edges) == 2 and edges[0].shape == (1, HEADS, 6, 6)
    assert (edges[0] > 0).sum(-1).tolist() == [[[1, 2, 2, 2, 2, 2]] * HEADS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"graph_attention": "gat"}, "graph_attention is 'gat'.*gin, pna"),
        ({"graph_weights": "relu"}, "graph_weights is 'relu'.*softmax, softplus"),
        ({"graph_threshold_mode": "hard"}, "graph_threshold_mode is 'hard'.*none, soft, binary, top_k, flow"),
        ({"graph_dropout": 1.0}, "graph_dropout is 1.0"),
        ({"graph_top_k": 0}, "graph_top_k is 0.*above 0"),
        ({"graph_threshold_mode": "flow", "graph_threshold": 0.0}, "share of a row"),
        ({"head_dim": 16}, "4 heads of width 16 do not fill hidden_size 32"),
    ],
)
def test_a_field_out_of_range_is_refused_with_the_way_out(settings, message):
    with pytest.raises(UserError, match=message):
        GraphLlamaConfig(hidden_size=32, num_attention_heads=4, **settings)
