"""Witnesses in another place: which hold, which are fragile."""

import copy
import dataclasses
import json

import pytest
import torch

from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_model
from llmctl.reach import Problem, Result, solve, solve_many
from llmctl.reach.curves.recheck import fragile, recheck, recheck_with_sampler
from llmctl.sampling import open_sampler
from llmctl.sampling.scripted import ScriptedSampler
from tests.reach.oracle import STATE, emitted


@pytest.fixture(scope="module")
def results(small_model, letters):
    problems = [Problem(state=STATE, target=[t], id=f"pair {t}") for t in range(0, 40, 2)]
    return solve_many(small_model, letters, problems, max_k=2)


def perturbed(model, scale):
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for weight in other.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data += scale * weight.data.std() * noise if weight.ndim > 1 else 0
    return other


def test_every_witness_holds_where_it_was_found(small_model, letters, results):
    found = recheck(results, small_model, letters)
    reached = [result for result in results if result.is_reached]
    assert 3 < len(reached) < len(results)
    assert [entry.id for entry in found] == [result.id for result in reached]
    assert all(
        entry.holds and entry.emitted_ids == r.target_ids for entry, r in zip(found, reached, strict=True)
    )
    assert {entry.where for entry in found} == {"transformers float32"}
    assert fragile(found) == ()


def test_a_witness_that_other_weights_answer_otherwise_is_fragile(small_model, letters, results):
    other = perturbed(small_model, 0.3)
    found = recheck(results, other, letters, where="perturbed")
    reached = [result for result in results if result.is_reached]
    controls = [torch.tensor([result.control_ids], dtype=torch.long) for result in reached]
    expected = [int(emitted(other, control)) for control in controls]
    assert [entry.emitted_ids for entry in found] == [(token,) for token in expected]
    broken = tuple(r.id for r, token in zip(reached, expected, strict=True) if (token,) != r.target_ids)
    assert 0 < len(broken) < len(reached)
    assert fragile([*recheck(results, small_model, letters), *found]) == broken
    assert {entry.where for entry in found} == {"perturbed"}


def test_a_witness_that_flips_in_another_dtype_is_marked(small_model, letters, results):
    half = copy.deepcopy(small_model).to(torch.bfloat16)
    pairs = torch.cartesian_prod(torch.arange(40), torch.arange(40))
    exact = emitted(small_model, pairs)
    for row in (exact != emitted(half, pairs)).nonzero().flatten().tolist():
        prompt = [*pairs[row].tolist(), *STATE]
        with torch.no_grad():
            alone = int(half(torch.tensor([prompt])).logits[0, -1].argmax())
        if alone != exact[row]:
            break
    else:
        raise RuntimeError("no control of two tokens flips in bfloat16")
    record = dataclasses.replace(
        next(result for result in results if result.is_reached),
        control_ids=tuple(prompt[:2]),
        prompt_ids=tuple(prompt),
        target_ids=(int(exact[row]),),
    )
    assert recheck([record], small_model, letters)[0].holds
    (entry,) = recheck([record], half, letters)
    assert (entry.holds, entry.emitted_ids, entry.where) == (False, (alone,), "transformers bfloat16")
    assert fragile([entry]) == (record.id,)
    json.dumps(entry.to_dict())


def test_nan_logits_do_not_hold_and_say_why(small_model, letters, results):
    broken = copy.deepcopy(small_model)
    broken.model.embed_tokens.weight.data[:] = float("nan")
    found = recheck(results, broken, letters)
    assert not any(entry.holds for entry in found)
    assert {(entry.emitted_ids, entry.error) for entry in found} == {
        ((), "the model gave NaN or infinite logits")
    }


@pytest.mark.parametrize("position", ["before", "after", "system", "user_end"])
def test_the_prompt_is_kept_as_it_was_laid_out(model, tokenizer, position):
    result = solve(model, tokenizer, Problem(state="hi", target="q", position=position), max_k=1)
    assert tokenizer.decode(result.prompt_ids, skip_special_tokens=False) == result.prompt_text
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_older_records_are_laid_out_again_where_that_is_possible(model, tokenizer):
    found = []
    for position in ("before", "after", "user_end"):
        with torch.no_grad():
            target = int(model(torch.tensor([tokenizer.encode("hi")])).logits[0, -1].argmax())
        result = solve(model, tokenizer, Problem(state="hi", target=[target], position=position), max_k=2)
        entry = result.to_dict()
        del entry["prompt_ids"]
        found.append(dataclasses.replace(Result.from_dict(entry), verdict="reached"))
        assert found[-1].prompt_ids == ()
    assert [entry.holds for entry in recheck(found[:1], model, tokenizer)] == [True]
    for old, position in zip(found[:2], ("before", "after"), strict=True):
        new = solve(model, tokenizer, Problem(state="hi", target=old.target_ids, position=position), max_k=2)
        asked = dataclasses.replace(new, verdict="reached")
        assert recheck([old], model, tokenizer) == recheck([asked], model, tokenizer)
    with pytest.raises(UserError, match="position 'user_end' cannot be laid out.*solve it again"):
        recheck(found, model, tokenizer)


def test_a_model_of_another_vocabulary_is_refused_with_the_witness_named(small_model, letters, results):
    far = dataclasses.replace(results[0], verdict="reached", prompt_ids=(3, 99))
    with pytest.raises(UserError, match="witness of pair 0 does not fit.*token 99.*0 to 39"):
        recheck([far], small_model, letters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Heads of 32, the least that vLLM's CPU attention takes, and weights large enough to matter."""
    return make_tiny_model(
        tmp_path_factory.mktemp("recheck") / "model",
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        max_position_embeddings=256,
    )


def solved_and_broken(folder):
    """Results on a folder's model: some with their witness, one whose target was never emitted."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    targets = [[t] for t in range(100, 120)] + [[5, 6]]
    problems = [Problem(state="hello", target=t, position="after", id=str(t)) for t in targets]
    results = solve_many(model, tokenizer, problems, max_k=2)
    with torch.no_grad():
        first = next(r for r in results if r.is_reached)
        logits = model(torch.tensor([first.prompt_ids])).logits[0, -1]
        token = int(logits.argmax())
        second = int(model(torch.tensor([[*first.prompt_ids, token]])).logits[0, -1].argmax())
    long = dataclasses.replace(first, target_ids=(token, second), id="two tokens")
    wrong = dataclasses.replace(first, target_ids=((token + 1) % 259,), id="wrong")
    return [*results, long, wrong]


def check_engine(results, sampler, where):
    found = recheck_with_sampler(results, sampler)
    assert [entry.id for entry in found] == [result.id for result in results if result.is_reached]
    assert len(found) > 4 and fragile(found) == ("wrong",)
    assert {entry.where for entry in found} == {where}
    assert {len(entry.emitted_ids) for entry in found} == {1, 2}


def test_another_engine_is_asked_from_token_ids(folder):
    with open_sampler(str(folder), engine="transformers", device="cpu") as sampler:
        check_engine(solved_and_broken(folder), sampler, "transformers float32")


def test_an_engine_without_token_ids_is_refused(results):
    with pytest.raises(UserError, match="engine scripted takes no token ids: recheck with engine vllm"):
        recheck_with_sampler(results, ScriptedSampler(lambda *_: "x"))


@pytest.mark.slow
def test_vllm_is_asked_from_token_ids(folder, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    results = solved_and_broken(folder)
    with open_sampler(str(folder), engine="vllm") as sampler:
        check_engine(results, sampler, "vllm float32")
