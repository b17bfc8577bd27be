"""Any OpenAI-compatible server as an engine: many requests at once, order kept, faults kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from llmctl.errors import EngineError, UserError
from llmctl.messages import Conversation
from llmctl.models.picture_parts import with_data_addresses
from llmctl.sampling.common import Closing, check_conversations, find_too_long, request_seeds
from llmctl.sampling.server_client import Client, Filtered, Refused, ServerOptions, Unavailable
from llmctl.sampling.server_reply import MalformedReply, Reply, read_chat
from llmctl.sampling.server_scores import CHAT, TokenScores
from llmctl.sampling.types import BatchSettings, Completion, PromptTooLong, SamplerInfo, Settings, Usage

T = TypeVar("T")

# What is asked beyond the protocol's core, most first; a server that refuses one rung is asked the next.
# The neutral values keep a server from adding sampling defaults of the model's own to the settings.
_RUNGS: tuple[dict[str, Any], ...] = (
    {
        "logprobs": True,
        "return_token_ids": True,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    },
    {"logprobs": True},
    {},
)


@dataclass
class _Outcome:
    """What became of one conversation."""

    completions: list[Completion]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class ServerSampler(Closing):
    """Samples from a server that speaks OpenAI's chat protocol (vLLM, SGLang, llama.cpp, OpenAI, ...).

    What a server cannot tell stays empty: `token_ids` is () and `logprob` is NaN. Log-probabilities are
    the server's; vLLM's are the raw model's unless it was started with another `--logprobs-mode`. The
    same seed gives the same samples where the server honours seeds.

    Args:
        model: The name that the server knows the model by.
        base_url: The server's address up to `/v1`.
        api_key: The key, from Python alone; where None, the environment's OPENAI_API_KEY if the user named
            the server's host (`llmctl.trust.allow_host`, `--allow-host`), and "none" otherwise.
        adapter: The name that the server knows a LoRA adapter by; it is asked instead of the model.
        max_parallel: Requests in flight at most.
        timeout_s: Seconds to wait for one reply.
        retries: Further tries after a failure (5xx, 429, timeout, lost connection, malformed reply).

    Raises:
        UserError: The package openai is missing, no server answers, the key is refused, or the server
            does not know the model or the adapter.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "http://127.0.0.1:8000/v1",
        api_key: str | None = None,
        adapter: str | None = None,
        max_parallel: int = 32,
        timeout_s: float = 120.0,
        retries: int = 4,
    ) -> None:
        options = ServerOptions(base_url.rstrip("/"), api_key, max_parallel, timeout_s, retries)
        self._client = Client(options)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(max_parallel, "llmctl-server")
        self.usage = Usage()
        self._rung = 0
        self._scores = TokenScores(self._client)
        try:
            self._served = self._list_models()
            self._check_name(model)
            details = {"base_url": options.base_url}
            self.info = SamplerInfo(model, "server", None, self._served[model], details)
            self.use_adapter(adapter)
        except BaseException:
            self.close()
            raise

    def use_adapter(self, adapter: str | None) -> None:
        """Ask for another LoRA adapter from now on, by the server's name of it, or for the bare model.

        Raises:
            UserError: The server does not know it.
        """
        if adapter is not None:
            self._check_name(adapter)
        self.info = replace(self.info, adapter=adapter)

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """See `Sampler.chat`."""
        settings = settings or Settings()
        check_conversations(conversations)
        seeds = request_seeds(settings.seed, conversations)

        def sample(number: int) -> _Outcome:
            outcome = self._converse(conversations[number], settings, seeds[number])
            # vLLM's server shortens the reply instead of refusing a prompt that leaves no room for it.
            limit = self.info.context_length
            outcome.completions = (
                find_too_long(number, outcome.prompt_tokens, settings, limit) or outcome.completions
            )
            return outcome

        outcomes = self._in_parallel(sample, len(conversations))
        self.usage.prompt_tokens += sum(outcome.prompt_tokens for outcome in outcomes)
        self.usage.cached_tokens += sum(outcome.cached_tokens for outcome in outcomes)
        self.usage.completion_tokens += sum(outcome.completion_tokens for outcome in outcomes)
        self.usage.errors += sum(c.is_error for outcome in outcomes for c in outcome.completions)
        return [outcome.completions for outcome in outcomes]

    def next_token_logprobs(
        self, conversations: Sequence[Conversation], tokens: Sequence[str | int]
    ) -> list[list[float]]:
        """See `Sampler.next_token_logprobs`.

        A server with `/tokenize` and `logprob_token_ids` (vLLM) is exact for any token. Another one
        names its 20 likeliest tokens, and a token that is not among them is an EngineError.
        """
        check_conversations(conversations)
        if not tokens:
            return [[] for _ in conversations]
        words = [token for token in tokens if isinstance(token, str)]
        if len(words) < len(tokens):
            raise EngineError("a server is asked for tokens by their text, not by ids: give strings")
        ids = self._scores.token_ids(self.info.model, words) if conversations else None

        asked = self.info.adapter or self.info.model

        def score(number: int) -> tuple[list[float], int]:
            try:
                return self._scores.score(asked, conversations[number], words, ids)
            except (Unavailable, MalformedReply, Refused) as error:
                raise EngineError(f"conversation {number} has no log-probabilities: {error}") from error

        found = self._in_parallel(score, len(conversations))
        self.usage.prompt_tokens += sum(prompt_tokens for _, prompt_tokens in found)
        return [row for row, _ in found]

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """The protocol asks by messages, not by token ids.

        Raises:
            EngineError: Always.
        """
        raise EngineError("a server is asked by messages, not by token ids: take engine vllm or transformers")

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            self._client.close()
            pool.shutdown(cancel_futures=True)

    # Sampling

    def _converse(self, conversation: Conversation, settings: Settings, seed: int) -> _Outcome:
        """All samples of one conversation; what the server leaves out is asked for again, or an error."""
        is_greedy = settings.temperature == 0
        wanted = 1 if is_greedy else settings.n  # greedy samples are all the same, and vLLM refuses several
        outcome = _Outcome([])
        done = outcome.completions
        while len(done) < wanted:
            try:
                reply = self._sample(conversation, settings, seed, len(done), wanted - len(done))
            except (Unavailable, MalformedReply, Refused, PromptTooLong) as error:
                if isinstance(error, PromptTooLong) and not isinstance(settings, BatchSettings):
                    raise
                failed = Completion("", finish_reason=_reason(error), error=str(error))
                done += [failed] * (wanted - len(done))
                break
            if not done:  # the prompt counts once, however many requests its samples take
                outcome.prompt_tokens, outcome.cached_tokens = reply.prompt_tokens, reply.cached_tokens
            outcome.completion_tokens += reply.completion_tokens
            done += reply.completions
        if is_greedy:
            outcome.completions = done * settings.n
            outcome.completion_tokens *= settings.n
        return outcome

    def _sample(
        self, conversation: Conversation, settings: Settings, seed: int, first: int, count: int
    ) -> Reply:
        """Samples `first`, `first + 1`, ... of one conversation: as many as the server gives at once."""
        body = {
            "model": self.info.adapter or self.info.model,
            "messages": with_data_addresses(conversation),
            "n": count,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            # vLLM adds the sample's number to the seed. 31 bits, since some servers keep no more.
            "seed": (seed + first) & 0x7FFFFFFF,
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        return self._client.with_retries(lambda: read_chat(self._ask_on_rung(body), count))

    def _ask_on_rung(self, body: dict[str, Any]) -> Any:
        """Ask for as much as this server is known to take, and learn where it refuses."""
        for rung in range(self._rung, len(_RUNGS)):
            try:
                data = self._client.post(CHAT, body | _RUNGS[rung])
            except Refused as error:
                # A filter reads the conversation; a bare request has no extras that could be to blame.
                if isinstance(error, Filtered) or rung == len(_RUNGS) - 1:
                    raise
            else:
                self._rung = max(self._rung, rung)
                return data
        raise EngineError("no request was sent")

    # The server

    def _in_parallel(self, work: Callable[[int], T], count: int) -> list[T]:
        """`work` on 0 ... count - 1, in order; the first mistake of the user ends what is not begun."""
        if self._pool is None:
            raise UserError("the sampler is closed: open it again")
        retries = self._client.retries
        futures = [self._pool.submit(work, number) for number in range(count)]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            self.usage.calls += 1
            self.usage.retries += self._client.retries - retries

    def _list_models(self) -> dict[str, int | None]:
        """Names of what the server serves, and context lengths where it tells them (vLLM does).

        Raises:
            UserError: No server answers, or what answers speaks another protocol.
        """
        url = self._client.options.base_url
        try:
            data = self._client.get("/models")
            return {entry["id"]: entry.get("max_model_len") for entry in data["data"]}
        except Unavailable as error:
            raise UserError(
                f"no server answers at {url}: {error}; start one (`python -m "
                "vllm.entrypoints.openai.api_server --model FOLDER`), or give its base_url"
            ) from error
        except (Refused, MalformedReply, AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"what answers at {url} is no OpenAI-compatible server: give the address up to /v1"
            ) from error

    def _check_name(self, name: str) -> None:
        if name not in self._served:
            raise UserError(
                f"the server at {self._client.options.base_url} serves no {name!r}: it serves "
                f"{', '.join(sorted(self._served)) or 'nothing'}"
            )


def _reason(error: Exception) -> str:
    """The finish reason of the samples that an exception leaves without a reply."""
    if isinstance(error, PromptTooLong):
        return "too_long"
    return "refused" if isinstance(error, Filtered) else "error"
