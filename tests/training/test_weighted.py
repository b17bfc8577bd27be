import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from llmctl.models.tiny import FAMILIES, make_tiny_model, tiny_tokenizer
from llmctl.training import weighted
from llmctl.training.data import prepare
from llmctl.training.data.encoding import IGNORED
from llmctl.training.weighted import LengthSampler, WeightedTrainer, match_state_shapes, score_labels

from .helpers import chat, some_rows


@pytest.fixture(scope="module", params=FAMILIES)
def family_model(request, tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("families") / request.param, request.param)
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def some_batch():
    """Two rows of 12 tokens, labels on the last 3 and the last 5."""
    ids = torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :9] = IGNORED
    labels[1, :7] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def reference_log_probs(model, batch):
    """(B, T-1), from all logits."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    log_p = logits[:, :-1].float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return log_p * (labels != IGNORED)


def build(kind, model, dataset, tmp_path, **changes):
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trainer"),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        remove_unused_columns=kind is SFTTrainer,
        dataset_kwargs=None if kind is SFTTrainer else {"skip_prepare_dataset": True},
        **changes,
    )
    return kind(model=model, args=arguments, train_dataset=dataset, processing_class=tiny_tokenizer())


def one_loss(trainer, rows, count):
    """Loss and gradients of a whole batch, as one optimizer step sees them."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(count))
    loss.backward()
    return loss.item(), [p.grad.clone() for p in trainer.model.parameters()]


def test_labels_are_scored_as_by_all_logits_in_every_family(family_model):
    batch = some_batch()
    outputs = score_labels(family_model, family_model.get_output_embeddings(), batch)
    torch.testing.assert_close(outputs.log_probs, reference_log_probs(family_model, batch))


def test_soft_capping_after_the_head_is_kept(tmp_path):
    folder = make_tiny_model(tmp_path / "capped", "gemma2", final_logit_softcapping=0.1)
    capped = AutoModelForCausalLM.from_pretrained(folder)
    batch = some_batch()
    log_p = score_labels(capped, capped.get_output_embeddings(), batch).log_probs
    torch.testing.assert_close(log_p, reference_log_probs(capped, batch))
    capped.config.final_logit_softcapping = None
    assert (log_p - reference_log_probs(capped, batch)).abs().max() > 0.01


def test_only_labelled_positions_go_through_the_head(model):
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(out.shape[:2]))
    score_labels(model, model.get_output_embeddings(), some_batch())
    assert seen == [(1, 3 + 5)]


def test_a_head_that_can_not_be_hooked_costs_speed_and_nothing_else(model):
    batch = some_batch()
    outputs = score_labels(model, None, batch)
    torch.testing.assert_close(outputs.log_probs, reference_log_probs(model, batch))


def test_the_hook_is_gone_afterwards_even_when_the_model_fails(model):
    head = model.get_output_embeddings()
    with pytest.raises(AttributeError):
        score_labels(model, head, some_batch() | {"attention_mask": "no tensor"})
    assert not head._forward_pre_hooks


def test_a_wrapped_model_is_scored_alike(model):
    from peft import LoraConfig, get_peft_model

    batch, expected = some_batch(), reference_log_probs(model, some_batch())
    tuned = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    outputs = score_labels(tuned, tuned.get_output_embeddings(), batch)
    torch.testing.assert_close(outputs.log_probs, expected)  # a fresh LoRA changes nothing


def test_entropy_and_accuracy_are_those_of_the_labelled_positions(model):
    batch = some_batch()
    outputs = score_labels(model, model.get_output_embeddings(), batch)
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    entropy = torch.distributions.Categorical(logits=logits).entropy() * outputs.label_mask
    torch.testing.assert_close(outputs.entropy, entropy)
    is_top1 = (logits.argmax(-1) == batch["labels"][:, 1:]) & outputs.label_mask
    assert torch.equal(outputs.is_top1.bool(), is_top1)


def test_with_all_weights_1_loss_and_gradients_are_those_of_trl(tiny_model, tmp_path):
    rows = [row | {"weight": 1.0} for row in some_rows(4)]
    plain = Dataset.from_list(
        [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    )
    prepared = prepare(rows, tiny_tokenizer())
    ours = build(
        WeightedTrainer, AutoModelForCausalLM.from_pretrained(tiny_model), prepared.dataset, tmp_path
    )
    trls = build(SFTTrainer, AutoModelForCausalLM.from_pretrained(tiny_model), plain, tmp_path)
    loss, gradients = one_loss(ours, range(4), prepared.label_tokens)
    expected, expected_gradients = one_loss(trls, range(4), prepared.label_tokens)
    assert loss == pytest.approx(expected, abs=1e-6)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


def test_the_loss_is_weight_times_summed_nll_over_the_number_of_label_tokens(model, tmp_path):
    prepared = prepare([chat("a", "bc", weight=2.0), chat("d", "e", weight=0.5)], tiny_tokenizer())
    trainer = build(WeightedTrainer, model, prepared.dataset, tmp_path)
    loss, _ = one_loss(trainer, range(2), prepared.label_tokens)
    nll = -reference_log_probs(model, trainer.data_collator.base(list(prepared.dataset))).sum(1)
    assert prepared.label_tokens == 4 + 3  # "bc" and "e", each with <|im_end|> and a line break
    assert loss == pytest.approx((2.0 * nll[0].item() + 0.5 * nll[1].item()) / 7, abs=1e-6)


def test_a_row_of_weight_0_gives_no_gradient_but_counts_its_tokens(model, tmp_path):
    both = prepare([chat("a", "bc"), chat("d", "e", weight=0.0)], tiny_tokenizer())
    trainer = build(WeightedTrainer, model, both.dataset, tmp_path)
    loss, gradients = one_loss(trainer, range(2), 7)
    alone, alone_gradients = one_loss(trainer, range(1), 4)
    assert loss == pytest.approx(alone * 4 / 7, abs=1e-6)
    for got, wanted in zip(gradients, alone_gradients, strict=True):
        torch.testing.assert_close(got, wanted * 4 / 7, rtol=1e-4, atol=1e-7)


def test_an_earlier_answer_is_context_and_not_a_target(model, tmp_path):
    row = chat("2+2?", "five", "wrong", "4")
    prepared = prepare([row], tiny_tokenizer())
    trainer = build(WeightedTrainer, model, prepared.dataset, tmp_path)
    batch = trainer.data_collator([prepared.dataset[0]])
    embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    call = {"inputs_embeds": embeddings, "labels": batch["labels"]}
    outputs = score_labels(model, model.get_output_embeddings(), call)
    carriers = outputs.log_probs[0].nonzero().flatten() + 1
    assert tiny_tokenizer().decode(batch["input_ids"][0, carriers]) == "4<|im_end|>\n"
    outputs.log_probs.sum().backward()
    question = tiny_tokenizer().apply_chat_template(row["messages"][:1], add_generation_prompt=True)[
        "input_ids"
    ]
    first_answer = slice(len(question), len(question) + len("five"))
    assert tiny_tokenizer().decode(batch["input_ids"][0, first_answer]) == "five"
    assert embeddings.grad[0, first_answer].abs().sum() > 0  # read, as context


def test_more_logits_than_the_limit_are_scored_in_tiles_with_the_same_loss(model, tmp_path, monkeypatch):
    prepared = prepare(some_rows(4), tiny_tokenizer())
    trainer = build(WeightedTrainer, model, prepared.dataset, tmp_path)
    loss, gradients = one_loss(trainer, range(4), prepared.label_tokens)
    monkeypatch.setattr(weighted, "MAX_LOGITS", 0)
    monkeypatch.setattr(weighted, "score_labels", None)
    tiled, tiled_gradients = one_loss(trainer, range(4), prepared.label_tokens)
    assert tiled == pytest.approx(loss, abs=1e-6)
    for got, wanted in zip(tiled_gradients, gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


def test_an_epoch_visits_every_row_once_and_ends_with_the_step_that_is_not_full():
    order = list(LengthSampler(lengths=[7, 3, 9, 1, 4, 4, 8, 2, 6, 5], group=4, seed=3))
    assert sorted(order) == list(range(10))
    lengths = [[7, 3, 9, 1, 4, 4, 8, 2, 6, 5][row] for row in order]
    assert sorted(lengths[8:]) == [1, 2]  # the shortest of the only pool


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = LengthSampler(range(40), group=4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    torch.manual_seed(5)
    first = order(0, 1)
    torch.manual_seed(6)
    assert order(0, 1) == first
    assert order(0, 2) != first
    assert order(1, 1) != first


def test_sorting_by_length_removes_most_of_the_padding():
    lengths = torch.randint(10, 200, (400,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(order):
        batches = [order[i : i + 8] for i in range(0, len(order), 8)]
        return sum(max(lengths[r] for r in batch) * len(batch) for batch in batches) - sum(lengths)

    sampled = padding(list(LengthSampler(lengths, group=8, seed=0)))
    assert sampled < 0.1 * padding(list(range(400)))


def test_rows_of_a_pass_come_before_those_of_the_next_each_pass_in_an_order_of_its_own():
    lengths = [n % 7 for n in range(30)]
    order = list(LengthSampler(lengths * 3, 4, seed=1, passes=[0] * 30 + [2] * 30 + [1] * 30))
    first, second, third = (order[start : start + 30] for start in (0, 30, 60))
    assert sorted(first) == list(range(30))
    assert sorted(second) == list(range(60, 90)) and sorted(third) == list(range(30, 60))
    assert [n % 30 for n in first] != [n % 30 for n in second]
    assert list(LengthSampler(lengths, 4, seed=1)) == first


def test_optimizer_state_of_an_earlier_version_gets_the_shape_of_its_parameter():
    scale = torch.nn.Parameter(torch.tensor([0.5]))
    optimizer = torch.optim.AdamW([scale], fused=True)
    scale.grad = torch.ones(1)
    optimizer.step()
    state = optimizer.state[scale]
    state |= {"exp_avg": state["exp_avg"].reshape(()), "exp_avg_sq": state["exp_avg_sq"].reshape(())}
    match_state_shapes(optimizer)
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == (1,) and state["step"].shape == ()
    optimizer.step()
