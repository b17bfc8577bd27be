"""A model behind the cache of summaries; it is loaded when an answer is missing from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.messages import Conversation
from llmctl.models import resolve
from llmctl.models.description import describe, fingerprint
from llmctl.msr.summaries.cache import SummaryCache, answer_key
from llmctl.sampling import Sampler, Settings, open_sampler
from llmctl.sampling.common import Closing, render
from llmctl.sampling.open import choose_engine
from llmctl.sampling.settings import EngineSettings

_DECIDING = ("dtype", "quantization", "base_url")  # options of an engine that can change an answer


@dataclass(frozen=True)
class Answer:
    """The text of a model's answer, or the reason why there is none."""

    text: str
    error: str | None = None


class CachedModel(Closing):
    """Samples from one model, through the cache.

    Equal conversations have equal answers: they are sampled once, and a sample depends on the conversation
    and the seed alone, not on the rest of the batch.

    Args:
        model: Alias, folder or Hub name.
        engine: The engine that runs it.
        cache: Where answers are kept.
        sampler: An open sampler to use in place of opening one; it is not closed here.
    """

    def __init__(
        self, model: str, engine: EngineSettings, cache: SummaryCache, sampler: Sampler | None = None
    ) -> None:
        self.model, self._engine, self._cache = model, engine, cache
        self._given = sampler
        self._own: Sampler | None = None
        self._tokenizer: Any = None
        self._context: int | None = None
        self.identity = self._identify()

    def complete(self, conversations: Sequence[Conversation], settings: Settings) -> list[Answer]:
        """One answer per conversation, in order; failures of the engine are not cached.

        Raises:
            UserError: A conversation does not fit into the model's context.
        """
        keys = [answer_key(self.identity, conversation, settings) for conversation in conversations]
        found = {key: Answer(text) for key, text in self._cache.get(list(dict.fromkeys(keys))).items()}
        missing = {
            key: conversation
            for key, conversation in zip(keys, conversations, strict=True)
            if key not in found
        }
        if missing:
            replies = self.sampler.chat(list(missing.values()), settings)
            new = {
                key: Answer(reply[0].text.encode(errors="replace").decode(), reply[0].error)
                for key, reply in zip(missing, replies, strict=True)
            }
            self._cache.put({key: answer.text for key, answer in new.items() if answer.error is None})
            found |= new
        return [found[key] for key in keys]

    def fits(self, conversation: Conversation, max_tokens: int) -> bool:
        """Whether a conversation of text leaves room for its answer; true where the context is not known."""
        if self._given is not None or self._engine.engine == "server":
            return True
        if self._tokenizer is None:
            from llmctl.models.loading import load_tokenizer

            self._tokenizer = load_tokenizer(self.model)
            self._context = (
                self._engine.options.get("context_length") or describe(self.model)["context_length"]
            )
        if self._context is None:
            return True
        return len(render(self._tokenizer, conversation)) + max_tokens <= self._context

    @property
    def sampler(self) -> Sampler:
        """The sampler, opened at the first use."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = open_sampler(self.model, engine=self._engine.engine, **self._engine.options)
        return self._own

    def close(self) -> None:
        """Free the sampler's memory; it is opened again at the next use."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _identify(self) -> dict[str, Any]:
        """What determines an answer beside the conversation and the sampling settings."""
        if self._given is not None:
            return {"engine": self._given.info.engine, "model": self._given.info.model}
        engine = choose_engine(self._engine.engine)[0]
        options = {name: value for name, value in self._engine.options.items() if name in _DECIDING}
        model = self.model if engine == "server" else fingerprint(Path(resolve(self.model)))
        return {"engine": engine, "model": model, **options}
