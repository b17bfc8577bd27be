"""The plain transformers engine: works wherever torch does, and is what a laptop CPU uses.

Speed comes from five things: rows of like length share a batch; what all prompts of a batch begin
with is computed once; in scoring, so is what only some of them begin with; n samples of a prompt share its
keys and values; a batch that does not fit in memory is halved and the size that fits is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.models.image_text import join_pictures
from llmctl.models.loading import Loaded, load
from llmctl.sampling.adapted import AdaptedModel
from llmctl.sampling.batches import Row, by_length, by_prefix, find_groups
from llmctl.sampling.common import (
    Closing,
    check_continuations,
    check_conversations,
    check_prompts,
    find_too_long,
    render,
    request_seeds,
    single_token_ids,
)
from llmctl.sampling.forward import ForwardPasses
from llmctl.sampling.generation import Generator
from llmctl.sampling.halving import BatchLimit
from llmctl.sampling.types import Completion, SamplerInfo, Settings, Usage


class TransformersSampler(Closing):
    """Samples with `generate` in this process.

    Args:
        model: An alias, a folder or a Hub name.
        adapter: A folder with a PEFT adapter.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto", "float32", "bfloat16", "float16".
        quantization: "none", "nf4", "int8".
        max_batch: Rows (conversations times samples) of one forward pass at most.
        max_batch_tokens: Tokens of one batch at most, padding and new tokens included.
        trust_remote_code: Run code that comes with the weights.

    Raises:
        UserError: The model or adapter cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
        max_batch: int = 64,
        max_batch_tokens: int = 32768,
        trust_remote_code: bool = False,
    ) -> None:
        loaded = self._load(
            model, device=device, dtype=dtype, quantization=quantization, trust_remote_code=trust_remote_code
        )
        self.tokenizer, self.device = loaded.tokenizer, loaded.device
        self.max_batch_tokens = max_batch_tokens
        text_config = loaded.model.config.get_text_config()
        self.context_length: int | None = getattr(text_config, "max_position_embeddings", None)
        self.usage = Usage()
        self._adapted = AdaptedModel(loaded.model)
        self._passes = self._forward_passes(self._adapted)
        self._generator = Generator(self._passes, self.tokenizer)
        self._limit = BatchLimit(max_batch, self.device)
        details = {"device": str(loaded.device), "dtype": str(loaded.dtype), "quantization": quantization}
        self.info = SamplerInfo(str(model), "transformers", None, self.context_length, details)
        self.use_adapter(adapter)

    @property
    def max_batch(self) -> int:
        """Rows of one forward pass at most; lower than at first where memory ran out."""
        return self._limit.rows

    def _load(self, model: str | Path, **options: Any) -> Loaded:
        """The model and its tokenizer."""
        return load(model, **options)

    def _forward_passes(self, adapted: AdaptedModel) -> ForwardPasses:
        """The forward passes of the loaded model."""
        return ForwardPasses(adapted, self.tokenizer.pad_token_id, self.device, self.usage)

    def use_adapter(self, adapter: str | Path | None) -> None:
        """Sample with another adapter from now on, or with the bare model; the base stays loaded."""
        name = None if adapter is None else str(adapter)
        self._adapted.use(name)
        self.info = replace(self.info, adapter=name)

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """See `Sampler.chat`."""
        settings = settings or Settings()
        rows, replies = self._fitting_rows(conversations, settings)
        with torch.inference_mode(), self._adapted.applied():
            for batch in self._batches(rows, settings):
                for row, completions in zip(batch, self._sample(batch, settings), strict=True):
                    replies[row.number] = completions
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(row.ids) for row in rows)
        self.usage.completion_tokens += sum(len(c.token_ids) for reply in replies for c in reply)
        return replies

    def next_token_logprobs(
        self, conversations: Sequence[Conversation], tokens: Sequence[str | int]
    ) -> list[list[float]]:
        """See `Sampler.next_token_logprobs`."""
        wanted = torch.tensor(single_token_ids(self.tokenizer, tokens), device=self.device)
        settings = Settings(max_tokens=1)
        rows = self._fitting_rows(conversations, settings)[0]
        found: list[list[float]] = [[] for _ in rows]
        with torch.inference_mode(), self._adapted.applied():
            for groups in by_prefix(rows, self.max_batch, self.max_batch_tokens):
                batch = [row for group in groups for row in group.rows]
                for row, values in zip(batch, self._score(batch, wanted), strict=True):
                    found[row.number] = values
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(row.ids) for row in rows)
        return found

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """See `TokenSampler.continue_ids`."""
        self._check_open()
        settings = Settings(temperature=0, max_tokens=max_tokens)
        check_prompts(prompts, max_tokens, self._adapted.vocabulary, self.context_length)
        rows = [Row(number, tuple(ids), 0) for number, ids in enumerate(prompts)]
        found: list[list[int]] = [[] for _ in rows]
        with torch.inference_mode(), self._adapted.applied():
            for batch in self._batches(rows, settings):
                for row, ids in zip(batch, self._continue(batch, max_tokens), strict=True):
                    found[row.number] = ids
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(row.ids) for row in rows)
        self.usage.completion_tokens += len(rows) * max_tokens
        return found

    def continuation_logprobs(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], bool]]:
        """See `ScoringSampler.continuation_logprobs`."""
        self._check_open()
        check_continuations(prompts, continuations, self._adapted.vocabulary, self.context_length)
        lengths = [len(wanted) for wanted in continuations]
        rows = [
            Row(number, (*prompt, *wanted))
            for number, (prompt, wanted) in enumerate(zip(prompts, continuations, strict=True))
        ]
        found: list[tuple[list[float], bool]] = [([], True) for _ in rows]
        with torch.inference_mode(), self._adapted.applied():
            for batch in self._batches(rows, Settings(max_tokens=1)):
                for row, score in zip(batch, self._score_continuations(batch, lengths), strict=True):
                    found[row.number] = score
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(row.ids) for row in rows)
        return found

    def close(self) -> None:
        """Free the model's memory."""
        self._adapted.model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check_open(self) -> None:
        if self._adapted.model is None:
            raise UserError("the sampler is closed: open it again")

    # Batches

    def _rows(self, conversations: Sequence[Conversation], settings: Settings) -> list[Row]:
        self._check_open()
        check_conversations(conversations)
        seeds = request_seeds(settings.seed, conversations)
        return [
            self._row(number, conversation, seed)
            for number, (conversation, seed) in enumerate(zip(conversations, seeds, strict=True))
        ]

    def _fitting_rows(
        self, conversations: Sequence[Conversation], settings: Settings
    ) -> tuple[list[Row], list[list[Completion]]]:
        """The rows that leave room for a reply, and the replies of all others, in the order of the input."""
        rows = self._rows(conversations, settings)
        found = [find_too_long(row.number, len(row.ids), settings, self.context_length) for row in rows]
        return [row for row, reply in zip(rows, found, strict=True) if reply is None], [
            reply or [] for reply in found
        ]

    def _row(self, number: int, conversation: Conversation, seed: int) -> Row:
        return Row(number, tuple(render(self.tokenizer, conversation)), seed)

    def _batches(self, rows: Sequence[Row], settings: Settings) -> list[list[Row]]:
        return by_length(rows, settings.n, settings.max_tokens, self.max_batch, self.max_batch_tokens)

    def _sample(self, batch: list[Row], settings: Settings) -> list[list[Completion]]:
        return self._limit.run(
            batch,
            lambda part: self._generator.generate(part, settings),
            n=settings.n,
            alone=lambda row: self._failed(row, settings),
        )

    def _score(self, batch: list[Row], wanted: torch.Tensor) -> list[list[float]]:
        def run(part: list[Row]) -> list[list[float]]:
            groups = list(find_groups(part, len(part))) if self._passes.can_share else []
            if any(group.shared for group in groups):
                logits = self._passes.last_logits_of_groups(groups)  # rows in the order of the groups
                order = [row for group in groups for row in group.rows]
            else:
                ids, mask = self._passes.pad(part)
                pictures = join_pictures([row.pictures for row in part], self.device, ids.shape[1])
                logits = self._passes.forward(ids, mask, None, pictures=pictures).logits[:, -1]
                order = part
            logprobs = logits.float().log_softmax(-1)[:, wanted].tolist()
            found: dict[int, list[float]] = dict(zip((row.number for row in order), logprobs, strict=True))
            return [found[row.number] for row in part]

        return self._limit.run(batch, run)

    def _score_continuations(
        self, batch: list[Row], lengths: Sequence[int]
    ) -> list[tuple[list[float], bool]]:
        def run(part: list[Row]) -> list[tuple[list[float], bool]]:
            keep = max(lengths[row.number] for row in part)
            ids, mask = self._passes.pad([Row(row.number, row.ids[:-1]) for row in part])
            output = self._passes.forward(ids, mask, None, keep=keep)
            logits = output.logits[:, -keep:].float()  # (B, keep, V)
            found = []
            for row, scores in zip(part, logits, strict=True):
                wanted = torch.tensor(row.ids[-lengths[row.number] :], device=self.device)
                own = scores[-len(wanted) :]
                picked = own.gather(-1, wanted[:, None]).squeeze(-1) - own.logsumexp(-1)
                found.append((picked.tolist(), bool((own.argmax(-1) == wanted).all())))
            return found

        return self._limit.run(batch, run)

    def _continue(self, batch: list[Row], max_tokens: int) -> list[list[int]]:
        def run(part: list[Row]) -> list[list[int]]:
            ids, mask = self._passes.pad(part)
            cache = DynamicCache(config=self._adapted.model.config)
            for _ in range(max_tokens):
                token = self._passes.forward(ids, mask, cache).logits[:, -1:].argmax(-1)  # (B, 1)
                ids, mask = torch.cat([ids, token], 1), torch.cat([mask, torch.ones_like(token)], 1)
            new: list[list[int]] = ids[:, -max_tokens:].tolist()
            return new

        return self._limit.run(batch, run)

    def _failed(self, row: Row, settings: Settings) -> list[Completion]:
        self.usage.errors += settings.n
        reason = (
            f"one prompt of {len(row.ids)} tokens with n={settings.n} does not fit in memory: "
            "lower n or max_tokens, or quantize the model"
        )
        return [Completion("", finish_reason="error", error=reason)] * settings.n
