"""lm-eval on a tiny model, offline, with a task of local data."""

import json

import pytest
import torch

from llmctl.errors import UserError
from llmctl.sampling import ScoringSampler, open_sampler
from llmctl.sampling.scripted import ScriptedSampler

pytestmark = pytest.mark.slow

CHOICES = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "The colour of {{thing}} is"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc}]
"""
GENERATE = """
task: echo
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{thing}}"
doc_to_target: "{{thing}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5}
metric_list: [{metric: exact_match}]
"""
ROWS = [
    {"thing": "grass", "choices": [" green", " blue"], "label": 0},
    {"thing": "the sky", "choices": [" green", " blue"], "label": 1},
    {"thing": "blood", "choices": [" red", " white and also blue"], "label": 0},
]


@pytest.fixture(scope="module")
def sampler(tiny_model):
    with open_sampler(str(tiny_model), engine="transformers", dtype="float32") as opened:
        yield opened


@pytest.fixture
def lm(sampler):
    from llmctl.jobs.lm_eval import SamplerLM

    return SamplerLM(sampler)


def evaluate(lm, folder, name, text):
    import lm_eval
    from lm_eval.tasks import TaskManager

    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(model=lm, tasks=[name], task_manager=manager, bootstrap_iters=0)


def reference(sampler, context, continuation):
    """Log-likelihood by one unbatched forward pass."""
    prompt, wanted = (
        sampler.tokenizer(t, add_special_tokens=False).input_ids for t in (context, continuation)
    )
    with torch.inference_mode():
        logits = sampler._adapted.model(torch.tensor([prompt + wanted])).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(wanted) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, wanted, strict=True))


def test_a_task_of_choices_is_scored_as_by_hand(lm, sampler, tmp_path):
    found = evaluate(lm, tmp_path, "colours", CHOICES)
    right = 0
    for row in ROWS:
        scores = [reference(sampler, f"The colour of {row['thing']} is", choice) for choice in row["choices"]]
        right += scores.index(max(scores)) == row["label"]
    assert found["results"]["colours"]["acc,none"] == pytest.approx(right / len(ROWS))
    assert found["n-samples"]["colours"]["effective"] == 3


def test_a_task_of_generation_goes_through_chat(tmp_path):
    from llmctl.jobs.lm_eval import SamplerLM

    parrot = ScriptedSampler(lambda conversation, seed: conversation[-1]["content"])
    found = evaluate(SamplerLM(parrot), tmp_path, "echo", GENERATE)
    assert found["results"]["echo"]["exact_match,none"] == 1.0


def test_batched_scores_are_those_of_each_alone(sampler):
    assert isinstance(sampler, ScoringSampler)
    prompts, wanted = [[5], [7, 8, 9, 10], [11, 12]], [[20, 21, 22], [23], [24, 25]]
    together = sampler.continuation_logprobs(prompts, wanted)
    for prompt, ids, (logprobs, is_greedy) in zip(prompts, wanted, together, strict=True):
        with torch.inference_mode():
            logits = sampler._adapted.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(ids)), ids].tolist()
        assert logprobs == pytest.approx(expected, abs=1e-4)
        assert is_greedy == (logits.argmax(-1).tolist() == ids)
    (greedy,) = sampler.continue_ids([[5, 6]], 3)
    assert sampler.continuation_logprobs([[5, 6]], [greedy])[0][1]


def test_rolling_counts_every_token_once(lm, sampler):
    from lm_eval.api.instance import Instance

    text = "a short text"
    (total,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    ids = sampler.tokenizer(text, add_special_tokens=False).input_ids
    (logprobs, _) = sampler.continuation_logprobs([[sampler.tokenizer.eos_token_id]], [ids])[0]
    assert total == pytest.approx(sum(logprobs), abs=1e-4)


def test_an_engine_that_can_not_score_says_so(tmp_path):
    from llmctl.jobs.lm_eval import SamplerLM

    with pytest.raises(UserError, match="engine scripted cannot score continuations"):
        evaluate(SamplerLM(ScriptedSampler(lambda c, s: "x")), tmp_path, "colours", CHOICES)


def test_scores_that_do_not_fit_are_refused(sampler):
    with pytest.raises(UserError, match="prompt 0 is empty"):
        sampler.continuation_logprobs([[]], [[1]])
    with pytest.raises(UserError, match="the context is"):
        sampler.continuation_logprobs([[1] * sampler.context_length], [[1, 2]])
