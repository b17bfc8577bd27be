"""The bound on a head, tried by random and by optimized controls: none may break it."""

import dataclasses
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmctl.errors import UserError
from llmctl.models.tiny import FAMILIES, make_tiny_model
from llmctl.reach import Problem, attention_bound
from llmctl.reach.attention_hook import attention_of
from llmctl.reach.bound import HeadBound, control_limits, least_k


@pytest.fixture(scope="module", params=FAMILIES)
def loud(request, tmp_path_factory):
    """A tiny model with large weights, so that heads attend to something and gains are not all one."""
    folder = make_tiny_model(tmp_path_factory.mktemp("loud") / request.param, request.param)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


PROMPT = [40, 70, 55, 90, 61, 44]


def head_output(tap, head, controls):
    """The head's output at the last token with control representations (K, D) before the norm."""
    hidden = tap.norm(controls)
    module = tap.module
    width = tap.values.shape[-1]
    place = head // tap.groups
    if hasattr(module, "c_attn"):
        _, keys, values = module.c_attn(hidden).chunk(3, -1)
    else:
        keys, values = module.k_proj(hidden), module.v_proj(hidden)
    keys, values = (t.view(len(controls), -1, width)[:, place] for t in (keys, values))
    if getattr(module, "k_norm", None) is not None:
        keys = module.k_norm(keys)
    logits = keys @ tap.queries[head] * tap.scaling
    if tap.softcap:
        logits = tap.softcap * torch.tanh(logits / tap.softcap)
    weights = torch.cat([tap.logits[head], logits]).softmax(0)
    return weights @ torch.cat([tap.values[head], values])


def orthogonal(output, base):
    return output - (output @ base) / (base @ base) * base


def bounds_of(model, tokenizer):
    report = attention_bound(model, tokenizer, Problem(state=PROMPT))
    return {(head.layer, head.head): head for head in report.heads}, attention_of(model, PROMPT)


def test_no_random_control_breaks_the_bound(loud, tokenizer):
    bounds, taps = bounds_of(loud, tokenizer)
    generator = torch.Generator().manual_seed(0)
    for tap in taps:
        for head in range(len(tap.queries)):
            base = tap.logits[head].softmax(0) @ tap.values[head]
            for k in (1, 3, 10):
                controls = torch.randn(k, tap.inputs.shape[1], generator=generator) * 10
                with torch.no_grad():
                    moved = orthogonal(head_output(tap, head, controls), base).norm()
                assert float(moved) <= bounds[tap.layer, head].limit(k) * (1 + 1e-5)


def test_no_optimized_control_breaks_the_bound_and_some_come_near(loud, tokenizer):
    bounds, taps = bounds_of(loud, tokenizer)
    shares = []
    for tap in taps:
        head, k = 1, 2
        tap_on = {name: getattr(tap, name).clone() for name in ("queries", "logits", "values")}
        base = tap_on["logits"][head].softmax(0) @ tap_on["values"][head]
        torch.manual_seed(0)
        controls = torch.randn(k, tap.inputs.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([controls], lr=0.1)
        live = dataclasses.replace(tap, **tap_on)
        for _ in range(120):
            optimizer.zero_grad()
            (-orthogonal(head_output(live, head, controls), base).norm()).backward()
            optimizer.step()
            with torch.no_grad():
                moved = float(orthogonal(head_output(live, head, controls), base).norm())
            assert moved <= bounds[tap.layer, head].limit(k) * (1 + 1e-5)
        shares.append(moved / bounds[tap.layer, head].limit(k))
    assert max(shares) > 0.2  # the bound is not so loose that nothing could test it


def test_real_control_tokens_keep_the_first_layer_within_the_bound(loud, tokenizer):
    # In the first layer the state's own representations do not depend on the control; GPT-2's do, through
    # absolute positions.
    if loud.config.model_type == "gpt2":
        pytest.skip("absolute positions move with the control")
    bounds, taps = bounds_of(loud, tokenizer)
    for control in ([7], [100, 200], [33, 34, 35, 36]):
        steered = attention_of(loud, [*control, *PROMPT])[0]
        for head in range(len(steered.queries)):
            base = taps[0].logits[head].softmax(0) @ taps[0].values[head]
            output = steered.logits[head].softmax(0) @ steered.values[head]
            assert float(orthogonal(output, base).norm()) <= bounds[0, head].limit(len(control)) * (1 + 1e-5)
            # rotary embeddings keep what the state's tokens say to one another
            torch.testing.assert_close(
                steered.logits[head, len(control) :], taps[0].logits[head], atol=1e-4, rtol=1e-4
            )


def test_the_tapped_head_gives_what_the_model_computes(loud):
    taps = attention_of(loud, PROMPT)
    outputs = {}

    def note(module, args, kwargs, result):
        outputs[module.layer_idx] = result[0][0, -1]

    hooks = [tap.module.register_forward_hook(note, with_kwargs=True) for tap in taps]
    with torch.no_grad():
        loud(torch.tensor([PROMPT]))
    for hook in hooks:
        hook.remove()
    for tap in taps:
        heads = torch.cat([tap.logits[h].softmax(0) @ tap.values[h] for h in range(len(tap.queries))])
        project = tap.module.c_proj if hasattr(tap.module, "c_proj") else tap.module.o_proj
        with torch.no_grad():
            torch.testing.assert_close(project(heads), outputs[tap.layer], atol=1e-4, rtol=1e-4)


def test_tapping_leaves_the_model_as_it_was(loud):
    before = loud.config._attn_implementation
    with torch.no_grad():
        expected = loud(torch.tensor([PROMPT])).logits
    attention_of(loud, PROMPT)
    assert loud.config._attn_implementation == before
    with torch.no_grad():
        torch.testing.assert_close(loud(torch.tensor([PROMPT])).logits, expected)


def test_the_least_k_is_the_first_that_the_limit_allows():
    # v_max 2, a = 0, g = 10: k tokens give at most 2k / (10 + k); 0.5 needs k >= 10/3, so 4
    head = HeadBound(0, 0, math.log(10), 0.0, 2.0, 1.0, 0.5, None, 0.0)
    assert [round(head.limit(k), 4) for k in (0, 1, 3, 4)] == [0, 0.1818, 0.4615, 0.5714]
    assert least_k(0.5, 2.0, 0.0, math.log(10)) == 4
    assert least_k(2.0, 2.0, 0.0, math.log(10)) is None  # as long as the longest value: no k suffices
    assert least_k(1e-9, 2.0, 50.0, 0.0) == 1


def test_the_bound_is_never_looser_than_the_papers(loud, tokenizer):
    bounds, _ = bounds_of(loud, tokenizer)
    for head in bounds.values():
        assert math.log(head.limit(1)) <= head.log_paper_bound + 1e-6


def test_the_report_serialises_and_says_what_it_is(model, tokenizer):
    report = attention_bound(model, tokenizer, Problem(state="some state"))
    entry = json.loads(json.dumps(report.to_dict()))
    assert len(entry["heads"]) == 2 * 4
    assert "one attention head" in entry["statement"]
    assert {(h["layer"], h["head"]) for h in entry["heads"]} == {(i, j) for i in range(2) for j in range(4)}


def test_a_key_and_a_value_never_exceed_their_limits(loud):
    generator = torch.Generator().manual_seed(5)
    tap = attention_of(loud, PROMPT)[-1]
    for head in range(len(tap.queries)):
        _, value_limit = control_limits(tap, head)
        hidden = torch.randn(200, tap.inputs.shape[1], generator=generator) * 3
        with torch.no_grad():
            alone = [head_output_value(tap, head, row) for row in hidden]
        assert max(alone) <= value_limit * (1 + 1e-5)


def head_output_value(tap, head, row):
    width, place = tap.values.shape[-1], head // tap.groups
    hidden = tap.norm(row[None])
    module = tap.module
    values = module.c_attn(hidden).chunk(3, -1)[2] if hasattr(module, "c_attn") else module.v_proj(hidden)
    return float(values.view(-1, width)[place].norm())


def test_an_orthogonal_part_of_nothing_is_refused(model, tokenizer):
    with pytest.raises(UserError, match="relative is 0"):
        attention_bound(model, tokenizer, Problem(state="a state"), relative=0)


def test_others_are_let_in_before_each_layer(model, tokenizer):
    calls = []
    report = attention_bound(model, tokenizer, Problem(state="hi"), between=lambda: calls.append(1))
    assert len(calls) == model.config.num_hidden_layers
    assert report == attention_bound(model, tokenizer, Problem(state="hi"))
