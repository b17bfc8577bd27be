"""Scoring requests of several searches in one forward pass.

Rows differ in length, so they are padded on the left, with a mask and positions. Where a problem's left
side (a state before the control, a chat template) is worth its keys and values, they are computed once a
search. A pass reads as many tokens of them as its shortest row allows: all rows put the same number of
tokens through the model, the last ones, so that padding stays on the left, where also windows see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, Job, ScoreRequest
from llmctl.reach.scoring.prefix_cache import Layers, joined
from llmctl.reach.scoring.scorer import NotFiniteError, Scores, halved, reduce_logits, rows_that_fit

_BACKWARD = 8  # a gradient keeps the activations of all layers: so many times fewer rows per pass


@dataclass(frozen=True)
class Piece:
    """Some rows of a job."""

    job: Job
    rows: slice

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start


class Batch:
    """Pieces as one padded block of B rows and `width` tokens, with P columns before it from caches."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        self.pieces = pieces
        self.keep = max(len(piece.job.target) for piece in pieces)
        self.width = max(piece.job.rest for piece in pieces)
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
            return {"use_cache": False}
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, self._cached :]
        cache = self._cache() if self._cached else None
        return {
            "attention_mask": mask.to(self._device),
            "position_ids": positions.to(self._device),
            "past_key_values": cache,
            "use_cache": cache is not None,
        }

    def _cache(self) -> DynamicCache:
        """The caches of all rows, right-aligned; columns that the mask hides hold anything finite."""
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


class Merger:
    """Runs the requests of several searches on one model; each gets its own answer or its own error."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._limit: int | None = None  # rows per pass, once memory ran out

    def answer(self, requests: Sequence[ScoreRequest | GradientRequest]) -> list[Any]:
        """Answer requests of one kind.

        Args:
            requests: In the order of their problems, which is all that decides what is merged with what.

        Returns:
            What the scorer's method returns (score and base: `Scores` and the rank), or a `NotFiniteError`.
        """
        jobs = [request.scorer.job(request) for request in requests]
        self._read_left([job for job in jobs if job.rest < job.length])
        if isinstance(requests[0], GradientRequest):
            self._in_batches(jobs, self._differentiate, _BACKWARD)
        else:
            for job in jobs:
                job.answer = _Answer(len(job.ids))
            self._in_batches(jobs, self._score, 1)
        return [self._settled(job) for job in jobs]

    def _settled(self, job: Job) -> Any:
        request, scorer = job.request, job.scorer
        if job.error is not None:
            return job.error
        if isinstance(request, GradientRequest):
            scorer.count_gradient(request.control)
            return job.answer
        if isinstance(request, ScoreRequest):
            scorer.count_score(request.controls, request.base)
        return job.answer.scores, job.answer.rank

    def _in_batches(self, jobs: Sequence[Job], run: Callable[[Batch], None], share: int) -> None:
        """Run jobs, like widths together; the widest come first, so that a lack of memory shows at once."""
        ordered = sorted(jobs, key=lambda job: (-job.rest, -job.length))  # stable: ties by problem
        pending = [Piece(job, slice(0, len(job.ids))) for job in ordered]
        keep = max((len(job.target) for job in jobs), default=1)
        while pending:
            room = max(rows_that_fit(self._model, pending[0].job.rest, keep) // share, 1)
            taken, left = _cut(pending, min(room, self._limit or room))
            try:
                run(Batch(taken, self._model.device))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._limit = halved(sum(map(len, taken)), error)
                continue
            pending = [piece for piece in left if piece.job.error is None]

    def _read_left(self, jobs: Sequence[Job]) -> None:
        """Compute the keys and values of left sides that were not asked for yet."""
        new = [job.scorer.left_job() for job in jobs if job.scorer.left is None]
        self._in_batches(new, self._keep_left, 1)

    @torch.inference_mode()
    def _keep_left(self, batch: Batch) -> None:
        cache: Any = DynamicCache()
        context = batch.context() | {"past_key_values": cache, "use_cache": True}
        self._model(input_ids=batch.ids(), logits_to_keep=1, **context)
        for row, piece in enumerate(batch.pieces):
            # Copies, since a view would keep the whole batch in memory.
            piece.job.scorer.left = [
                tuple(
                    part[row : row + 1, :, -piece.job.length :].clone() for part in (layer.keys, layer.values)
                )
                for layer in cache.layers
            ]

    def _score(self, batch: Batch) -> None:
        with torch.inference_mode():
            logits = self._model(
                input_ids=batch.ids(), logits_to_keep=batch.keep, **batch.context()
            ).logits  # (B, keep, V)
        is_finite = bool(torch.isfinite(logits.sum()))  # NaN and infinity both survive a sum
        for _, pieces, own, target in _by_target(batch, logits):
            values = [value.cpu() for value in reduce_logits(own, target)]
            bad = None if is_finite else ~torch.isfinite(own).all(-1).all(-1).cpu()
            start = 0
            for piece in pieces:
                place = slice(start, start + len(piece))
                start = place.stop
                if bad is not None and bad[place].any():
                    piece.job.error = _not_finite(piece, bad[place])
                else:
                    piece.job.answer.take(piece, [value[place] for value in values], own[place])

    def _differentiate(self, batch: Batch) -> None:
        table = self._model.get_input_embeddings().weight
        requests = [piece.job.request for piece in batch.pieces]
        controls = [request.control for request in requests if isinstance(request, GradientRequest)]
        rows = [p.job.scorer.embed(c) for p, c in zip(batch.pieces, controls, strict=True)]
        inputs = batch.embeds(rows).requires_grad_(True)
        losses: dict[int, float] = {}
        with torch.enable_grad():
            logits = self._model(inputs_embeds=inputs, logits_to_keep=batch.keep, **batch.context()).logits
            total = logits.new_zeros((), dtype=torch.float32)
            for where, _, own, target in _by_target(batch, logits):
                loss, _, _ = reduce_logits(own, target)
                total = total + loss.sum()
                losses |= dict(zip(where, loss.tolist(), strict=True))
            (slope,) = torch.autograd.grad(total, inputs)  # (B, T, D)
        picked = []
        for row, (piece, control) in enumerate(zip(batch.pieces, controls, strict=True)):
            layout = piece.job.scorer.layout
            stop = batch.width - len(layout.right_ids) - len(layout.target_ids) + 1
            picked.append(slope[row, stop - len(control) : stop])
        with torch.no_grad():
            slopes = torch.cat(picked).float() @ table.detach().float().T
        parts = slopes.split([len(control) for control in controls])
        for row, (piece, part) in enumerate(zip(batch.pieces, parts, strict=True)):
            piece.job.answer = (part, losses[row])


class _Answer:
    """The scores of a job's rows as they come in; those of an empty control have a base rank."""

    def __init__(self, rows: int) -> None:
        self.scores = Scores(torch.empty(rows), torch.empty(rows, dtype=torch.bool), torch.empty(rows))
        self.rank = -1

    def take(self, piece: Piece, values: Sequence[Tensor], logits: Tensor) -> None:
        """Note the values (B,) of some rows, whose logits are (B, M, V)."""
        scores = self.scores
        for kept, new in zip((scores.loss, scores.is_hit, scores.margin), values, strict=True):
            kept[piece.rows] = new
        request = piece.job.request
        if isinstance(request, ScoreRequest) and request.controls.shape[1] == 0:
            first = logits[0, 0].float()
            self.rank = int((first > first[piece.job.target[0]]).sum())


def _cut(pieces: Sequence[Piece], room: int) -> tuple[list[Piece], list[Piece]]:
    """The first `room` rows, and the rest."""
    taken: list[Piece] = []
    for number, piece in enumerate(pieces):
        if room == 0:
            return taken, list(pieces[number:])
        middle = piece.rows.start + min(room, len(piece))
        taken.append(Piece(piece.job, slice(piece.rows.start, middle)))
        room -= len(taken[-1])
        if middle < piece.rows.stop:
            return taken, [Piece(piece.job, slice(middle, piece.rows.stop)), *pieces[number + 1 :]]
    return taken, []


def _by_target(batch: Batch, logits: Tensor) -> list[tuple[list[int], list[Piece], Tensor, Tensor]]:
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


def _not_finite(piece: Piece, bad: Tensor) -> NotFiniteError:
    row = piece.rows.start + int(bad.nonzero()[0, 0])
    prompt = piece.job.ids[row, piece.job.length - piece.job.rest :].tolist()
    return NotFiniteError(f"the model gave NaN or infinite logits on the prompt that ends in {prompt}")
