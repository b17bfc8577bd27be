"""Samples of one batch with the `generate` of transformers, each with its own random stream."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from llmctl.sampling.batches import Row
from llmctl.sampling.common import derive_seed
from llmctl.sampling.decoding import SeededSampling, StopStrings, cut_at_stop
from llmctl.sampling.forward import ForwardPasses
from llmctl.sampling.types import Completion, Settings


class Generator:
    """Samples completions for batches of rows.

    Args:
        passes: The model's forward passes; they compute the prompts.
        tokenizer: The tokenizer of the model.
    """

    def __init__(self, passes: ForwardPasses, tokenizer: Any) -> None:
        self._passes, self._tokenizer = passes, tokenizer
        model = passes.adapted.model
        self._eos = _stop_tokens(model, tokenizer)
        # A model may ship a repetition penalty or a temperature of its own; settings decide here, alone.
        model.generation_config = self._config(1)

    def generate(self, batch: list[Row], settings: Settings) -> list[list[Completion]]:
        """Sample `settings.n` completions per row, in order."""
        ids, mask, cache, pictures = self._passes.prefill(batch, settings.n)
        seeds = [derive_seed(row.seed, sample) for row in batch for sample in range(settings.n)]
        sampling = SeededSampling(seeds, settings.max_tokens, settings.temperature, settings.top_p)
        stopping = [StopStrings(self._tokenizer, settings.stop, ids.shape[1])] if settings.stop else []
        output = self._passes.adapted.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=self._config(settings.max_tokens),
            logits_processor=[sampling],
            stopping_criteria=stopping,
            **pictures,
        )[:, ids.shape[1] :].cpu()
        logprobs = torch.stack(sampling.logprobs, 1)  # (B n, steps)
        flat = [self._completion(output[i].tolist(), logprobs[i], settings) for i in range(len(seeds))]
        return [flat[i : i + settings.n] for i in range(0, len(flat), settings.n)]

    def _config(self, max_tokens: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self._eos,
            pad_token_id=self._tokenizer.pad_token_id,
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
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    ids = own if isinstance(own, list) else [own]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})
