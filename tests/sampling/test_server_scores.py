"""Scores of tokens from servers of several kinds, without a server."""

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.sampling.server_client import Refused, ServerOptions
from llmctl.sampling.server_scores import TokenScores

ASK = [{"role": "user", "content": "yes or no?"}]
IDS = {"yes": 7, "no": 9}


class FakeClient:
    """A server that may tokenize and may score ids; it keeps every request."""

    options = ServerOptions("http://127.0.0.1:1/v1")

    def __init__(self, tokenizes=True, scores_ids=True):
        self.tokenizes, self.scores_ids, self.requests = tokenizes, scores_ids, []

    def with_retries(self, send):
        return send()

    def post(self, path, body):
        self.requests.append((path, body))
        if path.endswith("/tokenize"):
            if not self.tokenizes:
                raise Refused("404")
            return {"tokens": [IDS[body["prompt"]]] if body["prompt"] in IDS else [1, 2]}
        if "logprob_token_ids" in body:
            if not self.scores_ids:
                raise Refused("unknown field")
            return reply({f"token_id:{i}": -float(i) for i in body["logprob_token_ids"]})
        return reply({"yes": -0.5, "no": -1.5})


def reply(scores):
    top = [{"token": token, "logprob": value} for token, value in scores.items()]
    content = [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]
    return {"choices": [{"logprobs": {"content": content}}], "usage": {"prompt_tokens": 5}}


def score(client, tokens=("yes", "no")):
    scores = TokenScores(client)
    ids = scores.token_ids("m", tokens)
    return scores, scores.score("m", ASK, tokens, ids)


def test_a_server_that_scores_ids_is_asked_for_exactly_these():
    client = FakeClient()
    _, found = score(client)
    assert found == ([-7.0, -9.0], 5)
    assert client.requests[-1][1]["logprob_token_ids"] == [7, 9]


def test_another_server_is_read_from_its_likeliest_tokens_and_not_asked_for_ids_again():
    client = FakeClient(scores_ids=False)
    scores, found = score(client)
    assert found == ([-0.5, -1.5], 5)
    assert scores.token_ids("m", ["yes"]) is None


def test_without_a_tokenizer_ids_are_never_asked_for():
    client = FakeClient(tokenizes=False)
    _, found = score(client)
    assert found == ([-0.5, -1.5], 5)
    assert not any("logprob_token_ids" in body for _, body in client.requests)


def test_a_text_of_several_tokens_is_refused():
    with pytest.raises(UserError, match="'maybe' is 2 tokens of this model, but exactly one is needed"):
        TokenScores(FakeClient()).token_ids("m", ["yes", "maybe"])


def test_a_token_that_is_not_among_the_likeliest_is_named():
    with pytest.raises(EngineError, match="'perhaps' is not among them"):
        score(FakeClient(tokenizes=False), ("yes", "perhaps"))


def test_a_token_that_is_asked_for_twice_is_tokenized_once():
    client = FakeClient()
    assert TokenScores(client).token_ids("m", ["yes", "no", "yes"]) == [7, 9, 7]
    assert len(client.requests) == 2
