"""Batches that are halved where memory runs out; the number of rows that fits is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from llmctl.errors import EngineError
from llmctl.sampling.batches import Row

log = logging.getLogger(__name__)

T = TypeVar("T")


class BatchLimit:
    """The number of rows that a batch may have, which falls where memory runs out.

    Args:
        rows: Rows (prompts times samples) per forward pass at most.
        device: The device that computes.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self._device = rows, device

    def run(
        self,
        batch: list[Row],
        compute: Callable[[list[Row]], list[T]],
        *,
        n: int = 1,
        alone: Callable[[Row], T] | None = None,
    ) -> list[T]:
        """Compute a batch, in halves where memory runs out.

        Args:
            batch: A batch of prompts.
            compute: Gives one answer per prompt.
            n: Rows that a prompt takes.
            alone: The answer for a prompt that does not fit alone; None raises.

        Raises:
            EngineError: A prompt does not fit alone, and `alone` is None.
        """
        try:
            return compute(batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if len(batch) == 1:
            if alone is None:
                raise EngineError(f"one prompt of {len(batch[0].ids)} tokens does not fit in memory")
            return [alone(batch[0])]
        self._lower(len(batch) * n)
        half = len(batch) // 2
        return [
            *self.run(batch[:half], compute, n=n, alone=alone),
            *self.run(batch[half:], compute, n=n, alone=alone),
        ]

    def _lower(self, rows: int) -> None:
        """Keep to half of so many rows from now on."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.rows = max(1, rows // 2)
        log.warning("out of memory with %d rows: going on with %d", rows, self.rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
