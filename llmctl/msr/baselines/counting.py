"""Baselines that count: chance, popularity, and items chosen by the same users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.baselines.base import Baseline
from llmctl.msr.types import History, Item
from llmctl.sampling.common import derive_seed


class Random(Baseline):
    """Guesses; a check of the whole way from lists to metrics, since its level is known."""

    name = "random"

    def __init__(self, items: Sequence[Item], seed: int = 0) -> None:
        super().__init__(items)
        self._seed = seed

    def fit(self, histories: Iterable[History]) -> None:
        """There is nothing to learn."""

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) numbers that the seed and the user fix."""
        return np.random.default_rng(derive_seed(self._seed, "random", history.user)).random(len(self.items))


class Popularity(Baseline):
    """An item's number of training interactions, the same for everyone."""

    name = "popularity"

    def fit(self, histories: Iterable[History]) -> None:
        """Count."""
        self._counts = np.zeros(len(self.items))
        for history in histories:
            np.add.at(self._counts, self.history_places(history), 1)

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) counts."""
        return self._counts


class ItemKNN(Baseline):
    """Sum of the cosine similarities of an item and the items of the history.

    Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (WWW 2001), on binary
    interactions and with all neighbours: cos(i, j) = |users of both| / sqrt(|users of i| |users of j|). It
    is computed from the users of a history's items, so no table of all pairs is kept.
    """

    name = "item-knn"

    def fit(self, histories: Iterable[History]) -> None:
        """Keep who chose what, by user and by item."""
        chosen = [np.unique(self.history_places(history)) for history in histories]
        self._items = Ragged.of(chosen)
        user_of = np.repeat(np.arange(len(chosen)), self._items.lengths)
        by_item = np.argsort(self._items.values, kind="stable")
        counts = np.bincount(self._items.values, minlength=len(self.items))
        self._users = Ragged(user_of[by_item], counts)
        self._scale = 1 / np.sqrt(np.maximum(counts, 1))  # (I,)

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) summed similarities; 0 where nobody chose both."""
        own = self.history_places(history)
        users = self._users.take(own)
        weights = np.repeat(self._scale[own], self._users.lengths[own])  # of each (item, user) pair
        neighbours = self._items.take(users)
        weights = np.repeat(weights, self._items.lengths[users])
        return np.bincount(neighbours, weights, len(self.items)) * self._scale


class Ragged:
    """Rows of different lengths in one array.

    Args:
        values: (sum of lengths,) the rows, one after another.
        lengths: (rows,) how long each is.
    """

    def __init__(self, values: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.values, self.lengths = values, lengths
        self.starts = np.cumsum(lengths) - lengths

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> Ragged:
        """From the rows themselves."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate(rows) if rows else np.zeros(0, np.int64), lengths)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of some rows, one row after another."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
        return self.values[np.repeat(self.starts[rows], lengths) + within]
