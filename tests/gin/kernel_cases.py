"""What the fused kernel must compute, on the device named by LLMCTL_TEST_DEVICE.

Not collected by itself: Triton reads whether to interpret when it is first imported, so these run in a
process of their own, under the interpreter from test_fused.py and on a GPU from tests/gpu/test_kernel.py.
"""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.gin import fused, triton_kernel
from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule
from llmctl.gin.messages import send_messages
from tests.gin.tiny import FAMILIES, adapted, logits_of, pad_to, some_ids

DEVICE = os.environ.get("LLMCTL_TEST_DEVICE", "cpu")
LENGTH = 41  # two blocks of rows and of keys, and a rest in each
RULES: dict[str, GraphRule] = {
    "published": GraphRule(),
    "mean": GraphRule(heads="mean", threshold=0.05, epsilon=0.45),
    "any": GraphRule(heads="any", epsilon=0.4),
    "unsharpened": GraphRule(sharpness=None, epsilon=0.05),
    "all edges": GraphRule(sharpness=None, epsilon=0.0),
    "no self-loops": GraphRule(self_loops="drop"),
    "self-loops only": GraphRule(self_loops="only", epsilon=0.3),
    "no weights": GraphRule(edge_weights=False),
    "distance": GraphRule(distance_scale=7.0),
    "no weights, distance": GraphRule(edge_weights=False, distance_scale=7.0),
}


def make_inputs(
    mask: str = "none", queries: int = LENGTH, softcap: float | None = None, dtype: Any = torch.float32
) -> tuple[AttentionInputs, Tensor]:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(2, 4, LENGTH, 24, generator=generator)[:, :, LENGTH - queries :] * 2
    key = torch.randn(2, 2, LENGTH, 24, generator=generator)
    nodes = torch.randn(2, LENGTH, 20, generator=generator)
    query, key, nodes = (tensor.to(DEVICE, dtype) for tensor in (query, key, nodes))
    visible = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    visible[0, :, :, :5] = False  # left padding, so five rows see nothing at all
    visible = visible[:, :, LENGTH - queries :].to(DEVICE)
    additive = torch.zeros(visible.shape, dtype=dtype, device=DEVICE)
    additive = additive.masked_fill(~visible, torch.finfo(dtype).min)
    additive[:, :, :, LENGTH // 2] += 0.7  # a bias, not only a mask
    chosen = {"none": None, "boolean": visible, "additive": additive, "shared": visible[1:]}[mask]
    return AttentionInputs.build(query, key, chosen, 0.3, softcap), nodes


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("mask", ["none", "boolean", "additive", "shared"])
def test_messages_are_those_of_the_plain_path(rule, mask):
    inputs, nodes = make_inputs(mask)
    assert fused.covers(inputs, rule, nodes)
    expected = send_messages(inputs, rule, nodes)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(triton_kernel.send_fused(inputs, rule, nodes), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [1, 9])
def test_new_tokens_hear_the_cached_ones(queries):
    inputs, nodes = make_inputs("boolean", queries)
    found = triton_kernel.send_fused(inputs, RULES["distance"], nodes)
    torch.testing.assert_close(found, send_messages(inputs, RULES["distance"], nodes), atol=1e-5, rtol=1e-5)


def test_scores_are_capped():
    capped, nodes = make_inputs(softcap=1.5)
    found = triton_kernel.send_fused(capped, RULES["unsharpened"], nodes)
    torch.testing.assert_close(
        found, send_messages(capped, RULES["unsharpened"], nodes), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(
        found, send_messages(replace(capped, softcap=None), RULES["unsharpened"], nodes)
    )


def test_tensors_may_lie_in_memory_in_any_order():
    inputs, nodes = make_inputs("boolean")
    expected = send_messages(inputs, RULES["mean"], nodes)
    turned = replace(
        inputs,
        query=inputs.query.transpose(1, 3).contiguous().transpose(1, 3),
        key=inputs.key.transpose(1, 2).contiguous().transpose(1, 2),
        mask=inputs.mask.transpose(2, 3).contiguous().transpose(2, 3),
    )
    found = triton_kernel.send_fused(
        turned, RULES["mean"], nodes.transpose(1, 2).contiguous().transpose(1, 2)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# The interpreter multiplies bfloat16 matrices as if their bits were whole numbers.
@pytest.mark.parametrize("dtype", [torch.float16] + [torch.bfloat16] * (DEVICE != "cpu"))
def test_half_precision_is_as_near_as_its_rounding(dtype):
    inputs, nodes = make_inputs("boolean", dtype=dtype)
    found = triton_kernel.send_fused(inputs, RULES["all edges"], nodes)
    exact = send_messages(
        replace(inputs, query=inputs.query.float(), key=inputs.key.float()), RULES["all edges"], nodes.float()
    )
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("rule", ["published", "any", "unsharpened", "no weights"])
@pytest.mark.parametrize("wanted", ["all", "nodes"])
def test_gradients_are_those_of_the_plain_path(rule, wanted, monkeypatch):
    monkeypatch.setattr("llmctl.gin.messages.BLOCK_ELEMENTS", 2 * 4 * LENGTH * 10)  # five blocks
    grads = []
    for send in (fused.fused_messages, send_messages):
        inputs, nodes = make_inputs("boolean")
        leaves = [nodes.requires_grad_()]
        if wanted == "all":
            leaves += [inputs.query.requires_grad_(), inputs.key.requires_grad_()]
        send(inputs, RULES[rule], nodes).square().sum().backward()
        grads.append([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])
    assert grads[0][0].abs().sum() > 0
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_the_same_logits_and_gradients_with_and_without_the_kernel(family, monkeypatch):
    ids, mask = pad_to([some_ids(1, 9)[0], some_ids(1, 6, seed=1)[0]], "left")
    calls: list[int] = []
    send = triton_kernel.send_fused
    monkeypatch.setattr(triton_kernel, "send_fused", lambda *args: calls.append(1) or send(*args))
    results = []
    for switch in ("on", "off"):
        monkeypatch.setenv(fused.SWITCH, switch)
        model = adapted(family).to(DEVICE)
        logits = model(input_ids=ids.to(DEVICE), attention_mask=mask.to(DEVICE)).logits[mask.bool()]
        logits.logsumexp(-1).sum().backward()
        down = [
            p.grad for name, p in model.named_parameters() if name.endswith("down.weight") or ".down." in name
        ]
        results.append([logits.detach(), *[g for g in down if g is not None]])
    assert len(results[0]) > 1 and calls
    torch.testing.assert_close(results[0], results[1], atol=2e-4, rtol=2e-4)


def test_generation_from_the_cache_goes_through_the_kernel(monkeypatch):
    monkeypatch.setenv(fused.SWITCH, "on")
    model, ids = adapted().to(DEVICE), some_ids(2, 7).to(DEVICE)
    found = model.generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    monkeypatch.setenv(fused.SWITCH, "off")
    for _ in range(5):  # the plain path, without a cache
        ids = torch.cat([ids, logits_of(model, ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found, ids)


def test_training_under_checkpointing_gives_the_same_gradients(monkeypatch):
    ids, grads = some_ids(2, 12).to(DEVICE), []
    for switch in ("on", "off"):
        monkeypatch.setenv(fused.SWITCH, switch)
        model = adapted(detach_graph=False).to(DEVICE).train()
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=ids, labels=ids).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-3)
