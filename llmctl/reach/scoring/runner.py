"""The one place from which scoring calls a model: it counts what it runs, and halves a batch that is too big.

Every row that a `Scorer`, a `PairBatch` or a `Merger` scores goes through a `RowRunner`. Its meter goes up by
the shape of the tensor that the model was given, so that counting cannot drift from running.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from llmctl.reach.scoring.models import vocabulary_of
from llmctl.reach.scoring.records import Meter

logger = logging.getLogger(__name__)

# Tokens per forward pass: beyond these, a bigger batch is no faster and only takes memory.
BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}
_MAX_LOGITS = 2**28  # entries of one block of logits (1 GiB in float32)
# Bytes of one block of keys and values: a cache that rows share is copied for every row of a pass.
CACHE_BYTES = {"cpu": 2**31, "cuda": 2**33}

J = TypeVar("J")  # what a piece's rows belong to
T = TypeVar("T")  # what a pass gives


@dataclass(frozen=True)
class Piece(Generic[J]):
    """Some rows of a job."""

    job: J
    rows: slice

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Room:
    """What one row takes in a forward pass."""

    length: int
    """Tokens that go through the model."""
    keep: int = 1
    """Positions whose logits are kept."""
    cached: int = 0
    """Tokens that are read from keys and values."""
    token_bytes: int = 0
    """Bytes of the keys and values of one token, over all layers."""


class RowRunner:
    """Runs rows of tokens through one model, and counts them."""

    def __init__(self, model: Any, meter: Meter, *, batch: int | None = None) -> None:
        """Wrap a model.

        Args:
            model: A causal language model of transformers in evaluation mode.
            meter: Where to count.
            batch: Most rows per forward pass; None chooses by the device and by what fits.
        """
        self.model, self.meter = model, meter
        self._batch = batch
        self._limit: int | None = None  # rows per pass, once memory ran out

    @torch.inference_mode()
    def forward(
        self,
        *,
        keep: int,
        sequences: int | None = None,
        cache: Any = None,
        check: Callable[[Tensor], None] | None = None,
        **inputs: Any,
    ) -> Tensor:
        """One forward pass, counted once its logits are accepted.

        Args:
            keep: Positions at the end of each row whose logits are wanted.
            sequences: Rows that count as scored; None counts all rows, 0 those of a prefix.
            cache: Keys and values that the rows continue.
            check: Raises where it does not accept the logits.
            inputs: `input_ids` (B, T) or `inputs_embeds` (B, T, D), with a mask and positions where needed.

        Returns:
            Logits, (B, keep, V).
        """
        logits = self._call(keep, cache, inputs)
        if check is not None:
            check(logits)
        self._count(inputs, sequences)
        return logits

    def gradient(
        self,
        leaf: Tensor,
        loss_of: Callable[[Tensor], Tensor],
        *,
        keep: int,
        cache: Any = None,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor]:
        """One forward and one backward pass.

        Args:
            leaf: The tensor that `inputs` were made from and that requires a gradient.
            loss_of: The losses (B,) of logits (B, keep, V).
            keep: As in `forward`.
            cache: As in `forward`.
            inputs: As in `forward`.

        Returns:
            The gradient of the sum of the losses by `leaf`, and the losses (B,).
        """
        with torch.enable_grad():
            losses = loss_of(self._call(keep, cache, inputs))
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        self._count(inputs, None, is_backward=True)
        return slope, losses.detach()

    def batches(self, count: int, rows: int, run: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """Run `count` rows in slices of at most `rows`; see `in_batches`."""
        whole = Piece(None, slice(0, count))
        for (piece,), value in self.in_batches([whole], lambda _: rows, lambda taken: run(taken[0].rows)):
            yield piece.rows, value

    def in_batches(
        self,
        pieces: Sequence[Piece[J]],
        rows: Callable[[Sequence[Piece[J]]], int],
        run: Callable[[list[Piece[J]]], T],
        is_wanted: Callable[[Piece[J]], bool] = lambda _: True,
    ) -> Iterator[tuple[list[Piece[J]], T]]:
        """Run pieces in their order; where memory runs out, halve the batch, try again, and keep to that.

        Args:
            pieces: All rows.
            rows: How many rows may go into the next pass, given the pieces that are left.
            run: One pass. It must be repeatable, since it is called again with fewer rows.
            is_wanted: Whether a piece still has to be run; asked after every pass.

        Yields:
            The pieces of a pass, and what `run` returned.
        """
        pending = [piece for piece in pieces if len(piece)]
        while pending:
            room = max(rows(pending), 1)
            taken, left = cut(pending, min(room, self._limit or room))
            try:
                value = run(taken)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._limit = halved(sum(map(len, taken)), error)
                continue
            yield taken, value
            pending = [piece for piece in left if is_wanted(piece)]

    def rows(self, room: Room) -> int:
        """How many rows fit into one forward pass."""
        return self._batch if self._batch is not None else rows_that_fit(self.model, room)

    def _call(self, keep: int, cache: Any, inputs: dict[str, Any]) -> Tensor:
        # Without a cache and padding there is nothing to mask, so the model takes its plain causal path.
        out = self.model(**inputs, past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep)
        logits: Tensor = out.logits
        return logits

    def _count(self, inputs: dict[str, Any], sequences: int | None, *, is_backward: bool = False) -> None:
        rows = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        tokens = rows.shape[0] * rows.shape[1]
        self.meter.add(len(rows) if sequences is None else sequences, tokens, is_backward=is_backward)


def rows_that_fit(model: Any, room: Room) -> int:
    """Rows per forward pass, by their tokens, their logits, and the keys and values copied for each."""
    device = model.device.type
    tokens = BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])
    fits = [tokens // max(room.length, 1), _MAX_LOGITS // (vocabulary_of(model) * room.keep)]
    if room.cached:
        row_bytes = (room.cached + room.length) * room.token_bytes
        fits.append(CACHE_BYTES.get(device, CACHE_BYTES["cpu"]) // max(row_bytes, 1))
    return max(min(fits), 1)


def halved(rows: int, error: Exception) -> int:
    """Rows to go on with after `rows` of them ran out of memory; any other error is raised again."""
    words = ("not enough memory", "can't allocate memory")  # messages of PyTorch on a CPU, by system
    is_memory = isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
    if not is_memory or rows <= 1:
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory with %d sequences: going on with %d", rows, rows // 2)
    return rows // 2


def cut(pieces: Sequence[Piece[J]], room: int) -> tuple[list[Piece[J]], list[Piece[J]]]:
    """The first `room` rows, and the rest."""
    taken: list[Piece[J]] = []
    for number, piece in enumerate(pieces):
        if room == 0:
            return taken, list(pieces[number:])
        middle = piece.rows.start + min(room, len(piece))
        taken.append(Piece(piece.job, slice(piece.rows.start, middle)))
        room -= len(taken[-1])
        if middle < piece.rows.stop:
            return taken, [Piece(piece.job, slice(middle, piece.rows.stop)), *pieces[number + 1 :]]
    return taken, []
