"""Reproducible sampling for `generate`: every row of a batch draws from a random stream of its own.

transformers samples with one global generator, so a row's text depends on its neighbours. Here the
draw happens in a logits processor, by inverting the cumulative distribution at a uniform number that
belongs to (row seed, step), and greedy search then takes the token that was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, StoppingCriteria

_TOP_P_SHORTLIST = 1024  # tokens sorted first; nearly always enough to hold the nucleus


class SeededSampling(LogitsProcessor):
    """Draw one token a row and leave it as the only finite score.

    Args:
        seeds: One seed a row.
        max_tokens: Steps at most; the uniform numbers of all steps are drawn at once.
        temperature: 0 is greedy.
        top_p: Nucleus mass kept.

    `logprobs` holds, a step, a tensor (B,) of natural log-probabilities of the drawn tokens under the
    model itself (temperature 1, whole vocabulary).
    """

    def __init__(self, seeds: Sequence[int], max_tokens: int, temperature: float, top_p: float) -> None:
        self.temperature, self.top_p = temperature, top_p
        self.uniforms = torch.tensor(
            np.stack([np.random.Generator(np.random.Philox(seed)).random(max_tokens) for seed in seeds])
        )  # (B, steps)
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        """Scores (B, V) become 0 at the drawn token and -inf elsewhere."""
        logits = scores.float()
        if self.temperature == 0:
            token = logits.argmax(-1)
        else:
            step = self.uniforms[:, len(self.logprobs)].to(logits.device)
            token = draw(torch.softmax(logits / self.temperature, -1), step, self.top_p)
        raw = logits.gather(-1, token[:, None]).squeeze(-1) - logits.logsumexp(-1)
        self.logprobs.append(raw.cpu())
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)


def draw(probabilities: torch.Tensor, uniform: torch.Tensor, top_p: float = 1.0) -> torch.Tensor:
    """Invert the cumulative distribution.

    Args:
        probabilities: (B, V), rows sum to 1.
        uniform: (B,), in [0, 1).
        top_p: The smallest set of most likely tokens that holds this mass is kept (Holtzman et al. 2020).

    Returns:
        Token ids, (B,).
    """
    if top_p < 1:
        return _draw_from_nucleus(probabilities, uniform, top_p)
    return _invert(probabilities, uniform)


def _invert(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    target = uniform[:, None].to(cumulative) * cumulative[:, -1:]
    # right=True: the first entry above the target, so a token of probability zero is never drawn
    return (
        torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=probabilities.shape[-1] - 1)
    )


def _draw_from_nucleus(probabilities: torch.Tensor, uniform: torch.Tensor, top_p: float) -> torch.Tensor:
    size = min(_TOP_P_SHORTLIST, probabilities.shape[-1])
    values, tokens = probabilities.topk(size)
    is_wide = values.sum(-1) < top_p
    if size == probabilities.shape[-1] or not bool(is_wide.any()):
        return _pick(values, tokens, uniform, top_p)
    # Row by row, so that a row's draw does not depend on how flat its neighbours are.
    drawn = _pick(values, tokens, uniform, top_p)
    values, tokens = probabilities[is_wide].sort(-1, descending=True)
    drawn[is_wide] = _pick(values, tokens, uniform[is_wide], top_p)
    return drawn


def _pick(values: torch.Tensor, tokens: torch.Tensor, uniform: torch.Tensor, top_p: float) -> torch.Tensor:
    """Draw from the nucleus of (B, W) probabilities in falling order, whose ids are `tokens`."""
    before = values.cumsum(-1) - values
    kept = values.masked_fill(before >= top_p, 0.0)
    return tokens.gather(-1, _invert(kept, uniform)[:, None]).squeeze(-1)


class StopStrings(StoppingCriteria):
    """End a row once its new text holds one of the strings."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], prompt_length: int) -> None:
        self.tokenizer, self.stop, self.prompt_length = tokenizer, stop, prompt_length
        # A stop string can spread over one token a byte, and begin inside a longer token before it.
        self.tail = max(len(text.encode()) for text in stop) + 8

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> Any:
        """(B,) booleans: whether the row is done."""
        new = input_ids[:, self.prompt_length :][:, -self.tail :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return torch.tensor([any(s in text for s in self.stop) for text in texts], device=input_ids.device)


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    places = [place for s in stop if (place := text.find(s)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
