"""A model that is asked for summaries: opened when an answer is not in the cache, and not before."""

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

_DECIDING = ("dtype", "quantization", "base_url")  # options of an engine that may change an answer


@dataclass(frozen=True)
class Answer:
    """What a model said, or why it said nothing."""

    text: str
    error: str | None = None


class Asker(Closing):
    """Asks one model, through the cache.

    Equal questions have equal answers: they are asked once, and the sample depends on the question and the
    seed alone, not on who else is asked beside.

    Args:
        model: Alias, folder or Hub name.
        engine: Its engine.
        cache: Where answers are kept.
        sampler: One that is open already, in place of opening one; the asker does not close it.
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

    def ask(self, conversations: Sequence[Conversation], settings: Settings) -> list[Answer]:
        """One answer a conversation, in order; failures of the engine are kept out of the cache.

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
        """Whether a conversation of text leaves room for its reply; true where that can not be told."""
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
        """The engine, opened at the first use."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = open_sampler(self.model, engine=self._engine.engine, **self._engine.options)
        return self._own

    def close(self) -> None:
        """Free the engine's memory; it is opened again where it is needed again."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _identify(self) -> dict[str, Any]:
        """What decides the answers beside the question and the settings."""
        if self._given is not None:
            return {"engine": self._given.info.engine, "model": self._given.info.model}
        engine = choose_engine(self._engine.engine)[0]
        options = {name: value for name, value in self._engine.options.items() if name in _DECIDING}
        model = self.model if engine == "server" else fingerprint(Path(resolve(self.model)))
        return {"engine": engine, "model": model, **options}
