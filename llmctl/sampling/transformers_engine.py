"""The plain transformers engine: works wherever torch does, and is what a laptop CPU uses.

Speed comes from five things: rows of like length share a batch; what all prompts of a batch begin
with is computed once; in scoring, so is what only some of them begin with; n samples of a prompt share its
keys and values; a batch that does not fit in memory is halved and the size that fits is kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.models.image_text import join_pictures
from llmctl.models.loading import Loaded, attach_adapter, load
from llmctl.sampling.batches import Row, by_length, by_prefix, find_groups
from llmctl.sampling.common import (
    check_continuations,
    check_conversations,
    check_prompts,
    derive_seed,
    find_too_long,
    render,
    request_seeds,
    single_token_ids,
)
from llmctl.sampling.decoding import SeededSampling, StopStrings, cut_at_stop
from llmctl.sampling.forward import ForwardPasses
from llmctl.sampling.types import Completion, SamplerInfo, Settings, Usage


class TransformersSampler(ForwardPasses):
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
        self._model: Any = loaded.model
        self.tokenizer, self.device = loaded.tokenizer, loaded.device
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        text_config = loaded.model.config.get_text_config()
        self.context_length: int | None = getattr(text_config, "max_position_embeddings", None)
        self._eos = _stop_tokens(self._model, self.tokenizer)
        # A model may ship a repetition penalty or a temperature of its own; settings decide here, alone.
        self._model.generation_config = self._generation_config(1)
        self._adapters: dict[str, str] = {}  # folder -> PEFT name
        self.usage = Usage()
        details = {"device": str(loaded.device), "dtype": str(loaded.dtype), "quantization": quantization}
        self.info = SamplerInfo(str(model), "transformers", None, self.context_length, details)
        self.use_adapter(adapter)

    def _load(self, model: str | Path, **options: Any) -> Loaded:
        """The model and its tokenizer."""
        return load(model, **options)

    def use_adapter(self, adapter: str | Path | None) -> None:
        """Sample with another adapter from now on, or with the bare model; the base stays loaded."""
        name = None if adapter is None else str(adapter)
        if name is not None and name not in self._adapters:
            self._add_adapter(name)
        if name is not None:
            self._model.set_adapter(self._adapters[name])
        self.info = SamplerInfo(
            self.info.model, self.info.engine, name, self.info.context_length, self.info.details
        )

    def _add_adapter(self, folder: str) -> None:
        name = f"a{len(self._adapters)}"
        self._model = attach_adapter(self._model, folder, name=name).eval()
        self._adapters[folder] = name

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """See `Sampler.chat`."""
        settings = settings or Settings()
        rows, replies = self._fitting_rows(conversations, settings)
        with torch.inference_mode(), self._adapter_state():
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
        with torch.inference_mode(), self._adapter_state():
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
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        check_prompts(prompts, max_tokens, vocabulary, self.context_length)
        rows = [Row(number, tuple(ids), 0) for number, ids in enumerate(prompts)]
        found: list[list[int]] = [[] for _ in rows]
        with torch.inference_mode(), self._adapter_state():
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
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        check_continuations(prompts, continuations, vocabulary, self.context_length)
        lengths = [len(wanted) for wanted in continuations]
        rows = [
            Row(number, (*prompt, *wanted))
            for number, (prompt, wanted) in enumerate(zip(prompts, continuations, strict=True))
        ]
        found: list[tuple[list[float], bool]] = [([], True) for _ in rows]
        with torch.inference_mode(), self._adapter_state():
            for batch in self._batches(rows, Settings(max_tokens=1)):
                for row, score in zip(batch, self._score_continuations(batch, lengths), strict=True):
                    found[row.number] = score
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(row.ids) for row in rows)
        return found

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check_open(self) -> None:
        if self._model is None:
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
        return self._in_halves(
            batch,
            lambda part: self._generate(part, settings),
            n=settings.n,
            alone=lambda row: self._failed(row, settings),
        )

    def _score(self, batch: list[Row], wanted: torch.Tensor) -> list[list[float]]:
        def run(part: list[Row]) -> list[list[float]]:
            groups = list(find_groups(part, len(part))) if self._can_share else []
            if any(group.shared for group in groups):
                logits = self._last_logits_of_groups(groups)  # rows in the order of the groups
                order = [row for group in groups for row in group.rows]
            else:
                ids, mask = self._pad(part)
                pictures = join_pictures([row.pictures for row in part], self.device, ids.shape[1])
                logits = self._forward(ids, mask, None, pictures=pictures).logits[:, -1]
                order = part
            logprobs = logits.float().log_softmax(-1)[:, wanted].tolist()
            found: dict[int, list[float]] = dict(zip((row.number for row in order), logprobs, strict=True))
            return [found[row.number] for row in part]

        return self._in_halves(batch, run)

    def _score_continuations(
        self, batch: list[Row], lengths: Sequence[int]
    ) -> list[tuple[list[float], bool]]:
        def run(part: list[Row]) -> list[tuple[list[float], bool]]:
            keep = max(lengths[row.number] for row in part)
            ids, mask = self._pad([Row(row.number, row.ids[:-1]) for row in part])
            logits = self._forward(ids, mask, None, keep=keep).logits[:, -keep:].float()  # (B, keep, V)
            found = []
            for row, scores in zip(part, logits, strict=True):
                wanted = torch.tensor(row.ids[-lengths[row.number] :], device=self.device)
                own = scores[-len(wanted) :]
                picked = own.gather(-1, wanted[:, None]).squeeze(-1) - own.logsumexp(-1)
                found.append((picked.tolist(), bool((own.argmax(-1) == wanted).all())))
            return found

        return self._in_halves(batch, run)

    def _continue(self, batch: list[Row], max_tokens: int) -> list[list[int]]:
        def run(part: list[Row]) -> list[list[int]]:
            ids, mask = self._pad(part)
            cache = DynamicCache(config=self._model.config)
            for _ in range(max_tokens):
                token = self._forward(ids, mask, cache).logits[:, -1:].argmax(-1)  # (B, 1)
                ids, mask = torch.cat([ids, token], 1), torch.cat([mask, torch.ones_like(token)], 1)
            new: list[list[int]] = ids[:, -max_tokens:].tolist()
            return new

        return self._in_halves(batch, run)

    def _failed(self, row: Row, settings: Settings) -> list[Completion]:
        self.usage.errors += settings.n
        reason = (
            f"one prompt of {len(row.ids)} tokens with n={settings.n} does not fit in memory: "
            "lower n or max_tokens, or quantize the model"
        )
        return [Completion("", finish_reason="error", error=reason)] * settings.n

    # One batch

    def _generate(self, batch: list[Row], settings: Settings) -> list[list[Completion]]:
        ids, mask, cache, pictures = self._prefill(batch, settings.n)
        seeds = [derive_seed(row.seed, sample) for row in batch for sample in range(settings.n)]
        sampling = SeededSampling(seeds, settings.max_tokens, settings.temperature, settings.top_p)
        stopping = [StopStrings(self.tokenizer, settings.stop, ids.shape[1])] if settings.stop else []
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=self._generation_config(settings.max_tokens),
            logits_processor=[sampling],
            stopping_criteria=stopping,
            **pictures,
        )[:, ids.shape[1] :].cpu()
        logprobs = torch.stack(sampling.logprobs, 1)  # (B n, steps)
        flat = [self._completion(output[i].tolist(), logprobs[i], settings) for i in range(len(seeds))]
        return [flat[i : i + settings.n] for i in range(0, len(flat), settings.n)]

    def _generation_config(self, max_tokens: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self._eos,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
        )

    def _completion(self, tokens: list[int], logprobs: torch.Tensor, settings: Settings) -> Completion:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self._eos), None)
        ids = tokens[:end]
        text = self._text(ids if end is None else ids[:-1])
        text, was_cut = cut_at_stop(text, settings.stop)
        if was_cut:  # also where an end token follows: it may be the padding of a row that is done
            ids = ids[: self._tokens_until_stop(ids, settings.stop)]
        reason = "stop" if end is not None or was_cut else "length"
        return Completion(text, tuple(ids), float(logprobs[: len(ids)].double().sum()), reason)

    def _tokens_until_stop(self, ids: list[int], stop: Sequence[str]) -> int:
        """A row that is done waits for its batch; its tokens end where its text first holds the stop."""
        lengths = range(1, len(ids) + 1)
        place = bisect_left(lengths, True, key=lambda length: cut_at_stop(self._text(ids[:length]), stop)[1])
        return lengths[min(place, len(ids) - 1)]

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    ids = own if isinstance(own, list) else [own]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})
