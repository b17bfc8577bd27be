"""Popularity: the same ranking for every user, by the number of training interactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.baselines.base import ItemIndex
from llmctl.msr.baselines.registry import BaselineEntry
from llmctl.msr.types import History, Item


class Popularity:
    """Scores an item by its number of training interactions.

    Args:
        items: The catalogue, I items.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._index = ItemIndex(items)
        self._counts = np.zeros(len(items))

    def fit(self, histories: Iterable[History]) -> None:
        """Count the interactions of each item."""
        self._counts = np.zeros(len(self._index))
        for history in histories:
            np.add.at(self._counts, self._index.of_history(history), 1)

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) counts."""
        return self._counts


ENTRY = BaselineEntry(
    name="popularity",
    description="An item's number of training interactions.",
    factory=lambda items, settings, seed: Popularity(items),
)
