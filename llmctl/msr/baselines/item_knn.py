"""Item-based nearest neighbours: items that the same users chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.baselines.base import ItemIndex
from llmctl.msr.baselines.registry import BaselineEntry
from llmctl.msr.types import History, Item


class ItemKNN:
    """Scores an item by the sum of its cosine similarities with the items of the history.

    Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (WWW 2001), on binary
    interactions and with all neighbours: cos(i, j) = |users of both| / sqrt(|users of i| |users of j|). The
    sum is computed from the users of the history's items, so no table of all pairs is kept.

    Args:
        items: The catalogue, I items.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._index = ItemIndex(items)

    def fit(self, histories: Iterable[History]) -> None:
        """Keep which user chose which item, by user and by item."""
        chosen = [np.unique(self._index.of_history(history)) for history in histories]
        self._items = RaggedRows.of(chosen)
        user_of = np.repeat(np.arange(len(chosen)), self._items.lengths)
        by_item = np.argsort(self._items.values, kind="stable")
        counts = np.bincount(self._items.values, minlength=len(self._index))
        self._users = RaggedRows(user_of[by_item], counts)
        self._scale = 1 / np.sqrt(np.maximum(counts, 1))  # (I,)

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) summed similarities; 0 where no user chose both items."""
        own = self._index.of_history(history)
        users = self._users.take(own)
        weights = np.repeat(self._scale[own], self._users.lengths[own])  # one per (item, user) pair
        neighbours = self._items.take(users)
        weights = np.repeat(weights, self._items.lengths[users])
        return np.bincount(neighbours, weights, len(self._index)) * self._scale


class RaggedRows:
    """Rows of different lengths in one array.

    Args:
        values: (sum of lengths,) the rows, one after another.
        lengths: (rows,) length of each row.
    """

    def __init__(self, values: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.values, self.lengths = values, lengths
        self.starts = np.cumsum(lengths) - lengths

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> RaggedRows:
        """Make it from the rows themselves."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate(rows) if rows else np.zeros(0, np.int64), lengths)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of the given rows, one row after another."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
        return self.values[np.repeat(self.starts[rows], lengths) + within]


ENTRY = BaselineEntry(
    name="item-knn",
    description="Sum of cosine similarities with the history's items, from who chose both.",
    factory=lambda items, settings, seed: ItemKNN(items),
)
