"""The rows of merged requests, and a padded block of some of them.

Rows differ in length, so they are padded on the left, with a mask and positions. Where a problem's left
side (a state before the control, a chat template) is worth its keys and values, they are computed once
per search. A pass reads as many tokens of them as its shortest row allows: all rows put the same number of
tokens through the model, the last ones, so that padding stays on the left, where sliding windows see it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, ScoreRequest
from llmctl.reach.scoring.prefix_cache import Layers, bytes_per_token, joined
from llmctl.reach.scoring.records import ControlScores, NotFiniteError
from llmctl.reach.scoring.runner import Piece, Room


@dataclass(eq=False)
class RequestRows:
    """The rows of one request, all of one length, and the answer as it comes in."""

    scorer: AskingScorer
    ids: Tensor  # (N, L) on the CPU
    target: Tensor  # (M,): the last M positions predict it
    width: int  # tokens of a row that must go through the model; the others may be read from a cache
    request: ScoreRequest | GradientRequest | None = None  # None: the left side, whose keys are wanted
    scores: ControlScores = field(init=False)
    rank: int = -1  # of the first target token; for an empty control only
    slopes: tuple[Tensor, float] | None = None
    error: NotFiniteError | None = None

    def __post_init__(self) -> None:
        rows = len(self.ids)
        self.scores = ControlScores(torch.empty(rows), torch.empty(rows, dtype=torch.bool), torch.empty(rows))

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.ids.shape[1]

    def take(self, rows: slice, values: Sequence[Tensor], logits: Tensor) -> None:
        """Note loss, hit and margin (B,) of some rows, whose logits are (B, M, V)."""
        scores = self.scores
        for kept, new in zip((scores.loss, scores.is_hit, scores.margin), values, strict=True):
            kept[rows] = new
        if isinstance(self.request, ScoreRequest) and self.request.controls.shape[1] == 0:
            first = logits[0, 0].float()
            self.rank = int((first > first[self.target[0]]).sum())

    def refuse(self, rows: slice, bad: Tensor) -> None:
        """Note that some rows, marked in (B,), have logits that cannot be ranked."""
        row = rows.start + int(bad.nonzero()[0, 0])
        prompt = self.ids[row, self.length - self.width :].tolist()
        self.error = NotFiniteError(
            f"the model gave NaN or infinite logits on the prompt that ends in {prompt}"
        )


def rows_of(request: ScoreRequest | GradientRequest) -> RequestRows:
    """The rows that answer a request."""
    scorer, is_gradient = request.scorer, isinstance(request, GradientRequest)
    layout = scorer.layout
    controls = request.control[None] if isinstance(request, GradientRequest) else request.controls
    rows = len(controls)
    end = (*layout.right_ids, *layout.target_ids[:-1])
    parts = [
        torch.tensor(layout.left_ids, dtype=torch.long).expand(rows, -1),
        controls.cpu().clamp(min=0),
        torch.tensor(end, dtype=torch.long).expand(rows, -1),
    ]
    ids = torch.cat(parts, 1)
    reads = scorer.plan.reads_left(controls.shape[1]) and (is_gradient or rows > 1)
    width = ids.shape[1] - (len(layout.left_ids) if reads else 0)
    return RequestRows(scorer, ids, torch.tensor(layout.target_ids), width, request)


def left_rows(scorer: AskingScorer) -> RequestRows:
    """The left side of a search as one row, whose keys and values are wanted."""
    ids = torch.tensor([scorer.layout.left_ids])
    return RequestRows(scorer, ids, torch.tensor([0]), ids.shape[1])


def room_of(pending: Sequence[Piece[RequestRows]], keep: int) -> Room:
    """What a row of the next pass takes: the widest comes first, and all rows get the longest cache."""
    width = pending[0].job.width
    readers = [piece.job for piece in pending if piece.job.scorer.left and piece.job.length > width]
    cached = max((rows.length - width for rows in readers), default=0)
    token_bytes = bytes_per_token(readers[0].scorer.left or []) if readers else 0
    return Room(width, keep, cached, token_bytes)


class PaddedBatch:
    """Pieces as one padded block of B rows and `width` tokens, with P columns before it from caches."""

    def __init__(self, pieces: Sequence[Piece[RequestRows]], device: torch.device) -> None:
        self.pieces = pieces
        self.keep = max(len(piece.job.target) for piece in pieces)
        self.width = max(piece.job.width for piece in pieces)
        self.places: list[slice] = []  # of each piece among the B rows
        start = 0
        for piece in pieces:
            self.places.append(slice(start, start + len(piece)))
            start += len(piece)
        self._device, self._rows = device, start
        self._cached = max(0, *(piece.job.length - self.width for piece in pieces))  # P

    def ids(self) -> Tensor:
        """(B, T) the last tokens of each row; padding is token 0."""
        ids = torch.zeros(self._rows, self.width, dtype=torch.long)
        for piece, place in zip(self.pieces, self.places, strict=True):
            own = piece.job.ids[piece.rows, -self.width :]
            ids[place, self.width - own.shape[1] :] = own
        return ids.to(self._device)

    def embeds(self, rows: Sequence[Tensor]) -> Tensor:
        """(B, T, D) the last of each row's embeddings (L, D); padding is zero."""
        embeds = rows[0].new_zeros(self._rows, self.width, rows[0].shape[-1])
        for place, row in enumerate(rows):
            own = row[-self.width :]
            embeds[place, self.width - len(own) :] = own
        return embeds

    def context(self) -> dict[str, Any]:
        """Mask, positions and cache; none where nothing is padded, so that the model takes its plain path."""
        mask = torch.zeros(self._rows, self._cached + self.width, dtype=torch.long)
        for piece, place in zip(self.pieces, self.places, strict=True):
            mask[place, mask.shape[1] - piece.job.length :] = 1
        if self._cached == 0 and bool(mask.all()):
            return {}
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, self._cached :]
        cache = self._cache() if self._cached else None
        return {
            "attention_mask": mask.to(self._device),
            "position_ids": positions.to(self._device),
            "cache": cache,
        }

    def _cache(self) -> DynamicCache:
        """The caches of all rows, aligned on the right; masked columns hold any finite values."""
        index = torch.zeros(self._rows, self._cached, dtype=torch.long)
        begin: dict[AskingScorer, int] = {}
        prefixes: list[Layers] = []
        end = 0
        for piece, place in zip(self.pieces, self.places, strict=True):
            scorer, read = piece.job.scorer, piece.job.length - self.width
            if read <= 0 or scorer.left is None:
                continue
            if scorer not in begin:
                begin[scorer] = end
                prefixes.append(scorer.left)
                end += len(scorer.layout.left_ids)
            index[place, self._cached - read :] = torch.arange(begin[scorer], begin[scorer] + read)
        return joined(prefixes, index.to(self._device))


def by_target(
    batch: PaddedBatch, logits: Tensor
) -> list[tuple[list[int], list[Piece[RequestRows]], Tensor, Tensor]]:
    """By the number M of target tokens: row numbers, pieces, logits (b, M, V), targets (b, M)."""
    groups = []
    for length in sorted({len(piece.job.target) for piece in batch.pieces}):
        chosen = [
            (piece, place)
            for piece, place in zip(batch.pieces, batch.places, strict=True)
            if len(piece.job.target) == length
        ]
        where = [row for _, place in chosen for row in range(place.start, place.stop)]
        target = torch.cat([piece.job.target.expand(len(piece), -1) for piece, _ in chosen])
        own = logits if len(where) == len(logits) else logits[torch.tensor(where, device=logits.device)]
        groups.append((where, [piece for piece, _ in chosen], own[:, -length:], target.to(logits.device)))
    return groups
