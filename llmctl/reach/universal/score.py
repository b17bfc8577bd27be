"""Score found controls, one number per pair: losses, exact matches, tokens left out, text read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.pairs import PairBatch
from llmctl.reach.scoring.scorer import Scorer, context_of, vocabulary_of
from llmctl.reach.scoring.ties import tie_of
from llmctl.reach.universal.result import PairScores
from llmctl.reach.vocabulary import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def score_table(model: Any, layouts: Sequence[Layout], controls: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and match of every control on every pair.

    A match is that greedy decoding emits the answer token for token. With the answer before it, each of
    its tokens must be the argmax; near ties, which a batch may order differently, are decoded alone.

    Args:
        model: Of transformers.
        layouts: Of P pairs.
        controls: (N, K) token ids; K may be 0.

    Returns:
        (P, N) losses in nats per token, float64, and (P, N) matches.
    """
    batch = PairBatch(model, layouts)
    table = batch.score(controls)
    matches = table.is_hit.clone()
    for row, column in (table.margin.abs() <= tie_of(model)).nonzero().tolist():
        prompt = layouts[row].prompt(controls[column].tolist())
        matches[row, column] = batch.scorer(row).emits(prompt)
    return table.loss, matches


def score_pairs(model: Any, layouts: Sequence[Layout], controls: Tensor) -> PairScores:
    """One number per pair: of the control, or the mean over several (N, K)."""
    losses, matches = score_table(model, layouts, controls)
    return PairScores(tuple(losses.mean(1).tolist()), tuple(matches.double().mean(1).tolist()))


def score_without_each(model: Any, layouts: Sequence[Layout], control: Tensor) -> list[float]:
    """For every token of a control (K,), the mean loss over the pairs when it is left out."""
    k = len(control)
    kept = ~torch.eye(k, dtype=torch.bool)  # row i leaves out token i
    losses, _ = score_table(model, layouts, control.expand(k, k)[kept].view(k, k - 1))
    means: list[float] = losses.mean(0).tolist()
    return means


def match_as_text(
    model: Any, tokenizer: PreTrainedTokenizerBase, layouts: Sequence[Layout], control_ids: Sequence[int]
) -> tuple[list[bool], list[bool]]:
    """What becomes of the prompts when they are written out as text and encoded again.

    Returns:
        For each pair, whether the ids stay the same, and whether greedy decoding emits the answer then.
    """
    size, context = vocabulary_of(model), context_of(model)
    same, matches = [], []
    for layout in layouts:
        prompt = layout.prompt(control_ids)
        again = tokenizer.encode(decode(prompt, tokenizer), add_special_tokens=False)
        same.append(again == prompt)
        fits = bool(again) and max(again) < size
        fits = fits and (context is None or len(again) + len(layout.target_ids) <= context)
        matches.append(fits and Scorer(model, layout).emits(again))
    return same, matches
