"""Scoring requests of several searches in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from llmctl.reach.scoring.deferred import GradientRequest, ScoreRequest
from llmctl.reach.scoring.merged_rows import (
    PaddedBatch,
    RequestRows,
    by_target,
    left_rows,
    room_of,
    rows_of,
)
from llmctl.reach.scoring.records import Meter, reduce_logits
from llmctl.reach.scoring.runner import Piece, RowRunner

_BACKWARD = 8  # a gradient keeps the activations of all layers: so many times fewer rows per pass


class Merger:
    """Runs the requests of several searches on one model; each gets its own answer or its own error.

    Each search's own meter counts what the search would cost alone. `meter` counts what went through the
    model, with padding and without what several searches share.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a causal language model of transformers in evaluation mode."""
        self.meter = Meter()
        self._model = model
        self._runner = RowRunner(model, self.meter)

    def answer(self, requests: Sequence[ScoreRequest | GradientRequest]) -> list[Any]:
        """Answer requests of one kind.

        Args:
            requests: In the order of their problems, which is all that decides what is merged with what.

        Returns:
            What the scorer's method returns (score and base: scores and the rank), or a `NotFiniteError`.
        """
        asked = [rows_of(request) for request in requests]
        self._read_left([rows for rows in asked if rows.width < rows.length])
        if isinstance(requests[0], GradientRequest):
            self._in_batches(asked, self._differentiate, _BACKWARD)
        else:
            self._in_batches(asked, self._score, 1)
        return [_settled(rows) for rows in asked]

    def _in_batches(
        self, asked: Sequence[RequestRows], run: Callable[[PaddedBatch], None], share: int
    ) -> None:
        """Run rows, like widths together; the widest come first, so that a lack of memory shows at once."""
        ordered = sorted(asked, key=lambda rows: (-rows.width, -rows.length))  # stable: ties by problem
        keep = max((len(rows.target) for rows in asked), default=1)

        def room(pending: Sequence[Piece[RequestRows]]) -> int:
            return self._runner.rows(room_of(pending, keep)) // share

        def run_pieces(taken: list[Piece[RequestRows]]) -> None:
            run(PaddedBatch(taken, self._model.device))

        pieces = [Piece(rows, slice(0, len(rows.ids))) for rows in ordered]
        for _ in self._runner.in_batches(pieces, room, run_pieces, lambda piece: piece.job.error is None):
            pass

    def _read_left(self, asked: Sequence[RequestRows]) -> None:
        """Compute the keys and values of left sides that are not known yet."""
        new = [left_rows(rows.scorer) for rows in asked if rows.scorer.left is None]
        self._in_batches(new, self._keep_left, 1)

    @torch.inference_mode()
    def _keep_left(self, batch: PaddedBatch) -> None:
        cache: Any = DynamicCache()
        context = batch.context()
        context.pop("cache", None)
        self._runner.forward(input_ids=batch.ids(), keep=1, sequences=0, cache=cache, **context)
        for row, piece in enumerate(batch.pieces):
            # Copies, since a view would keep the whole batch in memory.
            piece.job.scorer.left = [
                (
                    layer.keys[row : row + 1, :, -piece.job.length :].clone(),
                    layer.values[row : row + 1, :, -piece.job.length :].clone(),
                )
                for layer in cache.layers
            ]

    def _score(self, batch: PaddedBatch) -> None:
        logits = self._runner.forward(
            input_ids=batch.ids(), keep=batch.keep, **batch.context()
        )  # (B, keep, V)
        is_finite = bool(torch.isfinite(logits.sum()))  # NaN and infinity both survive a sum
        for _, pieces, own, target in by_target(batch, logits):
            values = [value.cpu() for value in reduce_logits(own, target)]
            bad = None if is_finite else ~torch.isfinite(own).all(-1).all(-1).cpu()
            start = 0
            for piece in pieces:
                place = slice(start, start + len(piece))
                start = place.stop
                if bad is not None and bad[place].any():
                    piece.job.refuse(piece.rows, bad[place])
                else:
                    piece.job.take(piece.rows, [value[place] for value in values], own[place])

    def _differentiate(self, batch: PaddedBatch) -> None:
        table = self._model.get_input_embeddings().weight
        requests = [piece.job.request for piece in batch.pieces]
        controls = [request.control for request in requests if isinstance(request, GradientRequest)]
        rows = [p.job.scorer.embed(c) for p, c in zip(batch.pieces, controls, strict=True)]
        inputs = batch.embeds(rows).requires_grad_(True)

        def loss_of(logits: Tensor) -> Tensor:
            groups = [
                (where, reduce_logits(own, target)[0]) for where, _, own, target in by_target(batch, logits)
            ]
            order = torch.tensor([row for where, _ in groups for row in where], device=logits.device)
            return torch.cat([loss for _, loss in groups])[order.argsort()]

        slope, losses = self._runner.gradient(
            inputs, loss_of, keep=batch.keep, inputs_embeds=inputs, **batch.context()
        )  # (B, T, D)
        picked = []
        for row, (piece, control) in enumerate(zip(batch.pieces, controls, strict=True)):
            layout = piece.job.scorer.layout
            stop = batch.width - len(layout.right_ids) - len(layout.target_ids) + 1
            picked.append(slope[row, stop - len(control) : stop])
        with torch.no_grad():
            slopes = torch.cat(picked).float() @ table.detach().float().T
        parts = slopes.split([len(control) for control in controls])
        for piece, part, loss in zip(batch.pieces, parts, losses.tolist(), strict=True):
            piece.job.slopes = (part, loss)


def _settled(rows: RequestRows) -> Any:
    """The answer to a request, counted as its scorer alone would have counted it."""
    request, costs = rows.request, rows.scorer.costs
    if rows.error is not None:
        return rows.error
    if isinstance(request, GradientRequest):
        costs.count_gradient(request.control)
        return rows.slopes
    if isinstance(request, ScoreRequest):
        costs.count_score(request.controls, request.base)
    return rows.scores, rows.rank
