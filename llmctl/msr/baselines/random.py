"""Random scores: a check of the whole evaluation, since their expected metrics are known exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.baselines.registry import BaselineEntry
from llmctl.msr.types import History, Item
from llmctl.sampling.common import derive_seed


class Random:
    """Draws a score for every item.

    Args:
        items: The catalogue, I items.
        seed: Seed for the scores; they also depend on the user.
    """

    def __init__(self, items: Sequence[Item], seed: int = 0) -> None:
        self._count, self._seed = len(items), seed

    def fit(self, histories: Iterable[History]) -> None:
        """There is nothing to learn."""

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) numbers between 0 and 1 that the seed and the user determine."""
        return np.random.default_rng(derive_seed(self._seed, "random", history.user)).random(self._count)


ENTRY = BaselineEntry(
    name="random",
    description="Random scores.",
    factory=lambda items, settings, seed: Random(items, seed),
)
