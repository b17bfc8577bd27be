"""An engine without a model: a function of yours answers. For tests, dry runs and measuring overhead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmctl.errors import EngineError
from llmctl.messages import Conversation
from llmctl.sampling.common import Closing, check_conversations, derive_seed, request_seeds
from llmctl.sampling.types import Completion, SamplerInfo, Settings, Usage

Script = Callable[[Conversation, int], str]  # (conversation, seed of this sample) -> reply


class ScriptedSampler(Closing):
    """Answers with `script(conversation, seed)`; a token is a word.

    Args:
        script: Called once a sample; raising `EngineError` makes that sample an error.
        name: What `info.model` says.
    """

    def __init__(self, script: Script, name: str = "scripted") -> None:
        self.script = script
        self.info = SamplerInfo(name, "scripted")
        self.usage = Usage()

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """See `Sampler.chat`."""
        settings = settings or Settings()
        check_conversations(conversations)
        seeds = request_seeds(settings.seed, conversations)
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(str(m["content"]).split()) for c in conversations for m in c)
        return [
            [self._reply(conversation, derive_seed(seed, sample)) for sample in range(settings.n)]
            for conversation, seed in zip(conversations, seeds, strict=True)
        ]

    def _reply(self, conversation: Conversation, seed: int) -> Completion:
        try:
            text = self.script(conversation, seed)
        except EngineError as error:
            self.usage.errors += 1
            return Completion("", finish_reason="error", error=str(error))
        tokens = len(text.split())
        self.usage.completion_tokens += tokens
        return Completion(text, tuple(range(tokens)), 0.0, "stop")

    def next_token_logprobs(
        self, conversations: Sequence[Conversation], tokens: Sequence[str | int]
    ) -> list[list[float]]:
        """A script has no probabilities.

        Raises:
            EngineError: Always.
        """
        raise EngineError("a scripted sampler has no probabilities: use an engine with a model")
