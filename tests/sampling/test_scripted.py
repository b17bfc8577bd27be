"""The engine without a model."""

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.sampling import Sampler, Settings
from llmctl.sampling.scripted import ScriptedSampler


def ask(text):
    return [{"role": "user", "content": text}]


def test_it_is_a_sampler_that_keeps_order_and_gives_n_replies():
    sampler = ScriptedSampler(lambda conversation, seed: f"{conversation[-1]['content']} {seed}")
    assert isinstance(sampler, Sampler)
    found = sampler.chat([ask("a"), ask("b")], Settings(n=3, seed=1))
    assert [[c.text.split()[0] for c in row] for row in found] == [["a"] * 3, ["b"] * 3]
    assert len({c.text for row in found for c in row}) == 6
    assert found[::-1] == sampler.chat([ask("b"), ask("a")], Settings(n=3, seed=1))


def test_an_engine_error_is_that_samples_alone():
    def script(conversation, seed):
        if conversation[-1]["content"] == "bad":
            raise EngineError("the script says no")
        return "two words"

    sampler = ScriptedSampler(script)
    good, bad = sampler.chat([ask("good"), ask("bad")])
    assert (good[0].text, good[0].is_error) == ("two words", False)
    assert bad[0].is_error and bad[0].error == "the script says no"
    assert (sampler.usage.errors, sampler.usage.completion_tokens) == (1, 2)


def test_a_prompt_is_counted_once_however_many_samples():
    sampler = ScriptedSampler(lambda *_: "x")
    sampler.chat([ask("three words here")], Settings(n=5))
    assert (sampler.usage.prompt_tokens, sampler.usage.completion_tokens) == (3, 5)


def test_it_has_no_probabilities_and_refuses_what_engines_refuse():
    sampler = ScriptedSampler(lambda *_: "x")
    with pytest.raises(EngineError, match="no probabilities"):
        sampler.next_token_logprobs([ask("a")], ["x"])
    with pytest.raises(UserError, match="conversation 0 is empty"):
        sampler.chat([[]])
