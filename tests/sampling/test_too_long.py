"""One prompt that is longer than the context becomes a sample without a reply, where that is asked for."""

import pytest

from llmctl.errors import UserError
from llmctl.sampling import Settings, open_sampler
from llmctl.sampling.types import BatchSettings


def user(text):
    return [{"role": "user", "content": text}]


def test_the_transformers_engine_answers_the_prompts_that_fit(tiny_model):
    with open_sampler(str(tiny_model), engine="transformers") as sampler:
        prompts = [user("hello"), user("x " * sampler.info.context_length), user("good day")]
        with pytest.raises(UserError, match="conversation 1 has"):
            sampler.chat(prompts, Settings(max_tokens=3))
        found = sampler.chat(prompts, BatchSettings(n=2, max_tokens=3))
        alone = sampler.chat([prompts[0], prompts[2]], Settings(n=2, max_tokens=3))
    assert [completion.status for completion in found[1]] == ["too_long"] * 2
    assert found[1][0].is_error and "the context is" in found[1][0].error
    assert [found[0], found[2]] == alone
