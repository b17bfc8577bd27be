import pytest
import torch
import torch.nn.functional as F

from llmctl.errors import UserError
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.scoring.scorer import BLANK, NotFiniteError, Scorer

POSITIONS = ("before", "after", "user_end")


def layout_for(tokenizer, position="before", target="yz", state="hello there"):
    return lay_out(Problem(state=state, target=target, position=position), tokenizer)


def plain(model, layout, controls):
    """Loss, hit and margin by one full, unbatched forward pass a control."""
    target = torch.tensor(layout.target_ids)
    loss, hit, margin = [], [], []
    for control in controls.tolist():
        ids = [*layout.prompt(control), *layout.target_ids]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -len(target) - 1 : -1]
        loss.append(F.cross_entropy(logits, target))
        hit.append((logits.argmax(-1) == target).all())
        own = logits.gather(1, target[:, None])[:, 0]
        margin.append((own - logits.scatter(1, target[:, None], -1e9).amax(1)).min())
    return torch.stack(loss), torch.stack(hit), torch.stack(margin)


@pytest.mark.parametrize("position", POSITIONS)
def test_batched_scores_equal_plain_ones_in_every_family(any_model, tokenizer, position):
    layout = layout_for(tokenizer, position)
    base = torch.randint(3, 259, (4,), generator=torch.Generator().manual_seed(0))
    controls = base.repeat(17, 1)
    controls[range(16), torch.arange(16) % 4] = torch.arange(16) + 100
    loss, hit, margin = plain(any_model, layout, controls)
    for scorer in (
        Scorer(any_model, layout, batch=5),
        Scorer(any_model, layout, batch=64, reuse_prefix=False),
    ):
        for given in (None, base):
            scores = scorer.score(controls, given)
            torch.testing.assert_close(scores.loss, loss, atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(scores.margin, margin, atol=2e-5, rtol=1e-4)
            assert torch.equal(scores.is_hit, hit)


def test_a_prefix_longer_than_a_sliding_window_scores_as_without_reuse(tmp_path):
    from transformers import AutoModelForCausalLM

    from llmctl.models.tiny import make_tiny_model, tiny_tokenizer

    for family in ("gemma2", "gemma3", "mistral"):
        folder = make_tiny_model(tmp_path / family, family, sliding_window=16)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        layout = layout_for(tiny_tokenizer(), "after", state="a long state " * 3)
        controls = torch.randint(3, 259, (9, 3))
        expected, _, _ = plain(model, layout, controls)
        torch.testing.assert_close(Scorer(model, layout).score(controls).loss, expected, atol=2e-5, rtol=1e-5)


def test_a_shared_state_goes_through_the_model_once(model, tokenizer):
    layout = layout_for(tokenizer, "after", target="y")
    state = len(layout.left_ids)
    reusing, plainly = Scorer(model, layout), Scorer(model, layout, reuse_prefix=False)
    controls = torch.arange(3, 203).view(100, 2)
    assert torch.allclose(reusing.score(controls).loss, plainly.score(controls).loss, atol=1e-5)
    assert plainly.meter.forward_tokens == 100 * (state + 2)
    assert reusing.meter.forward_tokens == state + 100 * 2
    assert reusing.meter.forwards == plainly.meter.forwards == 100
    reusing.score(controls)
    assert reusing.meter.forward_tokens == state + 200 * 2  # kept from call to call


def test_swaps_at_a_position_read_the_tokens_left_of_it_from_their_keys(model, tokenizer):
    layout = layout_for(tokenizer, "before", target="y", state="abcd")
    base = torch.arange(10, 18)
    controls = base.repeat(6, 1)
    controls[:, 6] = torch.arange(50, 56)
    scorer = Scorer(model, layout)
    scorer.score(controls, base)
    assert scorer.meter.forward_tokens == 6 + 6 * (2 + 4)  # u[:6] once, then u[6:] and the state


def test_the_batch_is_halved_until_it_fits_and_scores_stay_the_same(model, tokenizer, monkeypatch):
    layout = layout_for(tokenizer)
    controls = torch.arange(3, 43).view(20, 2)
    expected = Scorer(model, layout).score(controls).loss
    forward, seen = model.forward, []

    def crowded(*args, **options):
        if len(options["input_ids"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(options["input_ids"]))
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", crowded)
    scorer = Scorer(model, layout, batch=16)
    assert torch.allclose(scorer.score(controls).loss, expected, atol=1e-5)
    assert seen == [4] * 5  # 16, 8, then 4
    assert scorer.meter.forwards == 20  # a pass that ran out of memory scored nothing


def test_an_error_that_is_not_about_memory_is_not_swallowed(model, tokenizer, monkeypatch):
    scorer = Scorer(model, layout_for(tokenizer))
    monkeypatch.setattr(model, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("bad kernel")))
    with pytest.raises(RuntimeError, match="bad kernel"):
        scorer.score(torch.arange(8).view(4, 2))


def test_the_gradient_is_that_of_the_one_hot_tokens(model, tokenizer):
    for position in ("before", "after"):
        layout = layout_for(tokenizer, position)
        control = torch.tensor([20, 30, 40])
        weight = model.get_input_embeddings().weight
        one_hot = F.one_hot(control, len(weight)).float().requires_grad_(True)
        left, right = (weight[list(ids)] for ids in (layout.left_ids, layout.right_ids))
        ends = weight[list(layout.target_ids[:-1])]
        embeds = torch.cat([left, one_hot @ weight, right, ends])[None]
        logits = model(inputs_embeds=embeds).logits[0, -len(layout.target_ids) :]
        loss = F.cross_entropy(logits, torch.tensor(layout.target_ids))
        (expected,) = torch.autograd.grad(loss, one_hot)
        slope, value = Scorer(model, layout).gradient(control)
        torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-4)
        assert value == pytest.approx(loss.item(), abs=1e-5)


def test_the_gradient_of_a_blank_is_finite_and_costs_one_pass(any_model, tokenizer):
    scorer = Scorer(any_model, layout_for(tokenizer))
    slope, _ = scorer.gradient(torch.tensor([BLANK, 40]))
    assert torch.isfinite(slope).all() and slope.shape == (2, 259)
    assert scorer.meter.forwards == 1
    assert scorer.meter.backward_tokens == scorer.meter.forward_tokens == 2 + 11 + 1


def test_emits_agrees_with_generate(model, tokenizer):
    layout = layout_for(tokenizer, target=[5, 6, 7])
    prompt = layout.prompt([33, 44])
    emitted = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :]
    right = lay_out(Problem(state="hello there", target=emitted.tolist()), tokenizer)
    assert Scorer(model, right).emits(prompt)
    assert not Scorer(model, layout).emits(prompt)


def test_nan_logits_are_reported_and_not_ranked(tiny_model, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    model.get_input_embeddings().weight.data[50] = float("nan")
    with pytest.raises(NotFiniteError, match=r"prompt that ends in \["):
        Scorer(model, layout_for(tokenizer)).score(torch.tensor([[49], [50]]))


def test_an_encoder_is_refused(tokenizer):
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(UserError, match="BertForMaskedLM.*decoder-only"):
        Scorer(BertForMaskedLM(config), layout_for(tokenizer))


def test_equal_controls_at_the_end_of_a_prompt_leave_every_target_token_its_logits(model, tokenizer):
    layout = layout_for(tokenizer, "after", target="xyz")
    controls = torch.tensor([[44], [44]])
    loss, hit, margin = plain(model, layout, controls)
    scores = Scorer(model, layout).score(controls)
    torch.testing.assert_close(scores.loss, loss, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scores.margin, margin, atol=2e-5, rtol=1e-4)
    assert torch.equal(scores.is_hit, hit)
