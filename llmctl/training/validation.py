"""The negative log-likelihood of rows under a model, row by row, so that intervals can be computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llmctl.training.data import Prepared
from llmctl.training.data.encoding import IGNORED
from llmctl.training.weighted import score_labels

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class RowLosses:
    """Losses on rows, in their order."""

    nll: tuple[float, ...]  # nats, summed over the label tokens of each row
    tokens: tuple[int, ...]  # label tokens of each row

    @property
    def loss(self) -> float:
        """Nats per label token, over all rows."""
        return math.fsum(self.nll) / sum(self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"nll": list(self.nll), "tokens": list(self.tokens)}


@torch.no_grad()
def row_losses(model: nn.Module, data: Prepared, batch_size: int, pad_id: int = 0) -> RowLosses:
    """Losses of a model on prepared rows, without dropout; the model's mode is as before afterwards.

    Args:
        model: A causal language model, possibly with adapters.
        data: Rows from `llmctl.training.data.prepare`; their weights are not read.
        batch_size: Rows per forward pass, of similar length and padded on the right.
        pad_id: Token to pad with.
    """
    whole: Any = model
    head = whole.get_output_embeddings()
    device = next(model.parameters()).device
    ids, labels = data.dataset["input_ids"][:], data.dataset["labels"][:]
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    nll, tokens = [0.0] * len(ids), [0] * len(ids)
    with _evaluating(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            call = _pad([ids[row] for row in rows], [labels[row] for row in rows], pad_id, device)
            found: Any = score_labels(model, head, {**call, "use_cache": False})
            sums = found.log_probs.double().sum(1).tolist()
            counts = found.label_mask.sum(1).tolist()
            for row, total, count in zip(rows, sums, counts, strict=True):
                nll[row], tokens[row] = -total, count
    return RowLosses(tuple(nll), tuple(tokens))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _pad(ids: list[list[int]], labels: list[list[int]], pad_id: int, device: Any) -> Mapping[str, Any]:
    longest = max(map(len, ids))

    def fill(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows], device=device)  # (B, T)

    mask = fill([[1] * len(row) for row in ids], 0)
    return {"input_ids": fill(ids, pad_id), "labels": fill(labels, IGNORED), "attention_mask": mask}
