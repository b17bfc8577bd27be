"""The words of sampling: messages in, completions and log-probabilities out.

An engine owes two batched, order-preserving verbs (`Sampler`). Everything that needs text from a model
(RISE, recommenders, evaluation jobs) receives a sampler and does not know which engine is behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from llmctl.errors import UserError
from llmctl.messages import Conversation

SampleStatus = Literal["ok", "error", "refused", "too_long", "truncated"]
"""What became of a sample. ok: a whole reply. truncated: a reply that max_tokens cut off. error: the engine
failed, and another try may do. refused: the provider's filter or the model refused to answer. too_long: the
prompt does not fit the model's context."""
STATUSES: tuple[SampleStatus, ...] = ("ok", "error", "refused", "too_long", "truncated")
_STATUS_OF: dict[str, SampleStatus] = {
    "stop": "ok",
    "length": "truncated",
    "error": "error",
    "refused": "refused",
    "too_long": "too_long",
}


class PromptTooLong(UserError):
    """A prompt leaves no room for its reply in the model's context."""


@dataclass(frozen=True)
class Settings:
    """How to sample; one object for all engines.

    A sample is a function of (seed, conversation, how often that conversation came before in the same
    call, sample number), so a batch gives the same samples in another order. `seed=None` draws a new
    seed for every call.
    """

    n: int = 1  # samples per conversation
    temperature: float = 1.0  # 0 is greedy decoding
    top_p: float = 1.0  # nucleus mass kept, in (0, 1]
    max_tokens: int = 256  # maximum number of new tokens
    stop: tuple[str, ...] = ()  # strings that end a completion; they are not part of its text
    seed: int | None = 0

    def __post_init__(self) -> None:
        """Refuse what no engine could sample with.

        Raises:
            UserError: A field is out of its range.
        """
        if self.n < 1:
            raise UserError(f"n is {self.n}, but at least 1 sample is needed: set n to 1 or more")
        if not self.temperature >= 0:
            raise UserError(f"temperature is {self.temperature}, but it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, but it must lie in (0, 1]: 1 keeps every token")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}, but at least 1 new token is needed")
        if isinstance(self.stop, str):
            raise UserError(
                f"stop is the string {self.stop!r}, but a list of strings is needed: [{self.stop!r}]"
            )
        object.__setattr__(self, "stop", tuple(self.stop))


@dataclass(frozen=True)
class BatchSettings(Settings):
    """Settings of a batch in which every conversation stands for itself.

    A prompt that does not fit the context becomes completions with `finish_reason="too_long"` in place of a
    `PromptTooLong` that ends the whole call.
    """


@dataclass(frozen=True)
class Completion:
    """One sampled reply.

    `logprob` is the natural log of the model's own probability (temperature 1, no top-p), summed over
    `token_ids`, the stop token included where one was emitted.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprob: float = 0.0
    finish_reason: str = "stop"  # "stop", "length", "error", "refused" or "too_long"
    error: str | None = None  # why there is no reply; set exactly where there is none
    counted_tokens: int | None = None  # the server's count of new tokens, where it tells no token ids

    @property
    def is_error(self) -> bool:
        """Whether there is no reply: the engine failed after its retries, refused, or had no room."""
        return self.finish_reason not in ("stop", "length")

    @property
    def status(self) -> SampleStatus:
        """What became of this sample."""
        return _STATUS_OF.get(self.finish_reason, "error")

    @property
    def tokens(self) -> int:
        """Number of new tokens: from the token ids, or else as the server counted them."""
        return len(self.token_ids) or self.counted_tokens or 0


@dataclass
class Usage:
    """Running counts of what an engine was asked for; counts do not depend on the machine's speed."""

    calls: int = 0
    prompt_tokens: int = 0  # tokens of all prompts, each prompt once
    cached_tokens: int = 0  # of these, tokens whose keys and values were reused instead of computed
    completion_tokens: int = 0
    retries: int = 0
    errors: int = 0

    def snapshot(self) -> Usage:
        """A copy, to subtract from later."""
        return Usage(**vars(self))

    def since(self, earlier: Usage) -> Usage:
        """What was used since `earlier`."""
        return Usage(**{key: value - getattr(earlier, key) for key, value in vars(self).items()})


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler is, for manifests and reports."""

    model: str
    engine: str  # "transformers", "vllm", "server" or "scripted"
    adapter: str | None = None
    context_length: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Sampler(Protocol):
    """What every engine owes. Both verbs are batched and keep the order of their input."""

    info: SamplerInfo
    usage: Usage

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """Sample `settings.n` replies to every conversation.

        An engine failure on one conversation, after retries, comes back as completions with
        `finish_reason="error"`; it does not raise.

        Args:
            conversations: Each a list of messages that ends with a user message.
            settings: How to sample; `Settings()` where None.

        Returns:
            One list per conversation, in order, of exactly `settings.n` completions.

        Raises:
            UserError: A conversation is malformed, or longer than the model's context (unless the settings
                are `BatchSettings`).
        """
        ...

    def next_token_logprobs(
        self, conversations: Sequence[Conversation], tokens: Sequence[str | int]
    ) -> list[list[float]]:
        """Log-probabilities of given tokens at the first position of the reply.

        Args:
            conversations: Each a list of messages that ends with a user message.
            tokens: Strings that are each exactly one token of the model's vocabulary, or ids of it where the
                engine has the vocabulary (a server has not).

        Returns:
            One list per conversation: natural log-probability of each token, in the order of `tokens`.

        Raises:
            UserError: A string is not a single token.
            EngineError: The engine cannot tell (a server that limits its log-probabilities, say).
        """
        ...

    def close(self) -> None:
        """Free the engine's memory and processes; calling it twice is harmless."""
        ...


@runtime_checkable
class ScoringSampler(Sampler, Protocol):
    """An engine that also gives the log-probabilities of given token ids."""

    tokenizer: Any

    def continuation_logprobs(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], bool]]:
        """Log-probabilities of given continuations.

        Args:
            prompts: Token ids, at least one each.
            continuations: As many lists of token ids, at least one each.

        Returns:
            For each pair, in order: the natural log-probability of each token of the continuation, and
            whether greedy decoding would give exactly these.

        Raises:
            UserError: One is empty, outside the vocabulary, or the two are longer than the context.
        """
        ...


@runtime_checkable
class TokenSampler(Sampler, Protocol):
    """An engine that also takes token ids as they are, without a chat template."""

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Continue every prompt by greedy decoding.

        An end token does not end the continuation: it is a token like any other.

        Args:
            prompts: Token ids of the model's vocabulary.
            max_tokens: New tokens of each prompt.

        Returns:
            For each prompt, in order, exactly `max_tokens` ids.

        Raises:
            UserError: A prompt is empty, outside the vocabulary, or leaves no room in the context.
            EngineError: The engine cannot tell (a server that is asked by messages, say).
        """
        ...
