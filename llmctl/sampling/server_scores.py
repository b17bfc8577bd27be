"""Log-probabilities of given tokens from a server: of their ids, or from its likeliest tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llmctl.errors import EngineError, UserError
from llmctl.messages import Conversation
from llmctl.models.picture_parts import with_data_addresses
from llmctl.sampling.server_client import Client, Refused
from llmctl.sampling.server_reply import MalformedReply, read_token_logprobs

CHAT = "/chat/completions"
TOP_LOGPROBS = 20  # the most that the protocol allows
_MAX_SCORED = 128  # the most ids that vLLM scores in one request


class TokenScores:
    """Asks a server for the log-probabilities of tokens at the first position of a reply.

    It remembers when a server turns out not to score ids, so that later calls do not ask for them.

    Args:
        client: The connection to the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scores_ids = True  # until the server shows otherwise

    def token_ids(self, model: str, tokens: Sequence[str]) -> list[int] | None:
        """Ids from the server's own tokenizer; None where the server has no `/tokenize`.

        Args:
            model: The name of the model whose tokenizer is asked.
            tokens: Strings that are each exactly one token.

        Raises:
            UserError: A string is not exactly one token.
        """
        if not self._scores_ids:
            return None
        by_token: dict[str, int] = {}
        for token in dict.fromkeys(tokens):
            found = self._tokenize(model, token)
            if found is None:
                self._scores_ids = False
                return None
            if len(found) != 1:
                raise UserError(f"{token!r} is {len(found)} tokens of this model, but exactly one is needed")
            by_token[token] = int(found[0])
        return [by_token[token] for token in tokens]

    def score(
        self, model: str, conversation: Conversation, tokens: Sequence[str], ids: list[int] | None
    ) -> tuple[list[float], int]:
        """Log-probabilities of the tokens at the first position of the reply.

        Args:
            model: The name of the model or adapter that is asked.
            conversation: Messages that end with a user message.
            tokens: Strings that are each exactly one token.
            ids: Their ids as `token_ids` gave them; None reads the server's likeliest tokens instead.

        Returns:
            One natural log-probability per token, and the number of tokens of the prompt.

        Raises:
            EngineError: A token is not among the likeliest ones of a server that does not score ids.
            Refused: The server refuses the request.
            Unavailable: No reply came after all retries.
            MalformedReply: What came is no reply of the protocol.
        """
        body = {
            "model": model,
            "messages": with_data_addresses(conversation),
            "temperature": 1.0,
            "max_tokens": 1,
            "logprobs": True,
        }
        if ids is not None:
            row, data = self._score_ids(body, ids)
            if row is not None:
                return row, _prompt_tokens(data)
            self._scores_ids = False
        data = self._client.with_retries(partial(self._post, body | {"top_logprobs": TOP_LOGPROBS}))
        return _named(read_token_logprobs(data), tokens), _prompt_tokens(data)

    def _tokenize(self, model: str, token: str) -> list[Any] | None:
        url = self._client.options.base_url.removesuffix("/v1") + "/tokenize"
        body = {"model": model, "prompt": token, "add_special_tokens": False}
        try:
            data = self._client.with_retries(partial(self._client.post, url, body))
        except (Refused, MalformedReply):
            return None
        found = data.get("tokens") if isinstance(data, dict) else None
        return found if isinstance(found, list) else None

    def _score_ids(self, body: dict[str, Any], ids: list[int]) -> tuple[list[float] | None, Any]:
        """Log-probabilities of exactly these ids (None where the server has none), and the last reply."""
        scores: dict[str, float] = {}
        data: Any = None
        for start in range(0, len(ids), _MAX_SCORED):
            extra = {
                "logprob_token_ids": ids[start : start + _MAX_SCORED],
                "return_tokens_as_token_ids": True,
            }
            try:
                data = self._client.with_retries(partial(self._post, body | extra))
            except Refused:
                return None, None
            scores |= read_token_logprobs(data)
        row = [scores.get(f"token_id:{i}") for i in ids]
        return (None if None in row else [float(v) for v in row if v is not None]), data

    def _post(self, body: dict[str, Any]) -> Any:
        data = self._client.post(CHAT, body)
        read_token_logprobs(data)  # so that a reply without them is tried again
        return data


def _named(scores: dict[str, float], tokens: Sequence[str]) -> list[float]:
    for token in tokens:
        if token not in scores:
            raise EngineError(
                f"the server gives only its {TOP_LOGPROBS} likeliest tokens, and {token!r} is not among "
                "them: use a server with logprob_token_ids (vLLM), or engine transformers"
            )
    return [scores[token] for token in tokens]


def _prompt_tokens(data: Any) -> int:
    usage = data.get("usage") if isinstance(data, dict) else None
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
