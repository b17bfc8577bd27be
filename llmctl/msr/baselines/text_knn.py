"""Text nearest neighbours: items whose words are similar to those of the history."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.baselines.base import ItemIndex
from llmctl.msr.baselines.registry import BaselineEntry
from llmctl.msr.types import History, Item

Embed = Callable[[Sequence[str]], NDArray[np.floating]]  # n texts -> (n, D)

_WORD = re.compile(r"\w+")


class TextKNN:
    """Scores an item by the cosine similarity of its text and the mean of the history's texts.

    Args:
        items: The catalogue, I items. An item's text is its title, then its description.
        embed: Turns texts into vectors, e.g. the mean hidden states of a language model. None takes TF-IDF
            of words.

    Raises:
        ValueError: There is not one vector per text, or a vector is not finite.
    """

    def __init__(self, items: Sequence[Item], embed: Embed | None = None) -> None:
        self._index = ItemIndex(items)
        texts = [f"{item.title}\n{item.text}" for item in items]
        self._vectors: SparseRows | DenseRows
        self._vectors = SparseRows.tf_idf(texts) if embed is None else DenseRows(embed(texts), len(texts))

    def fit(self, histories: Iterable[History]) -> None:
        """There is nothing to learn: the score depends on the texts of the items alone."""

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) cosines, up to a factor that all items share; 0 where no word is in common."""
        return self._vectors.similarity(self._index.of_history(history))


class DenseRows:
    """Vectors of length 1, all entries kept.

    Args:
        vectors: (n, D) of any length.
        count: n.
    """

    def __init__(self, vectors: NDArray[np.floating], count: int) -> None:
        if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
            raise ValueError(f"{count} finite vectors are needed, but embed gave shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._vectors = vectors / np.where(lengths > 0, lengths, 1)

    def similarity(self, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """(n,) products of every vector with the mean of the given rows."""
        if not len(rows):
            return np.zeros(len(self._vectors))
        product: NDArray[np.floating] = self._vectors @ self._vectors[rows].mean(0)
        return product


class SparseRows:
    """Vectors of length 1, of which only the entries other than 0 are kept.

    Args:
        words: (entries,) column of each entry, row after row.
        values: (entries,) value of each entry.
        lengths: (n,) number of entries per row.
        width: Number of columns.
    """

    def __init__(
        self,
        words: NDArray[np.int64],
        values: NDArray[np.float64],
        lengths: NDArray[np.int64],
        width: int,
    ) -> None:
        self._words, self._values, self._width = words, values, width
        self._rows = np.repeat(np.arange(len(lengths)), lengths)  # (entries,)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths

    @classmethod
    def tf_idf(cls, texts: Sequence[str]) -> SparseRows:
        """Word counts times log((1 + n) / (1 + texts with the word)) + 1, scaled to length 1.

        Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), ch. 6, with the smoothed
        inverse document frequency. Words are runs of letters and digits, in lower case.
        """
        columns: dict[str, int] = {}
        words: list[int] = []
        counts: list[int] = []
        lengths = np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts):
            found = Counter(_WORD.findall(text.casefold()))
            words += (columns.setdefault(word, len(columns)) for word in found)
            counts += found.values()
            lengths[number] = len(found)
        which = np.array(words, dtype=np.int64)
        idf = np.log((1 + len(texts)) / (1 + np.bincount(which, minlength=len(columns)))) + 1
        values = np.array(counts) * idf[which]
        rows = np.repeat(np.arange(len(texts)), lengths)
        values = values / np.sqrt(np.bincount(rows, values**2, len(texts)))[rows]
        return cls(which, values, lengths, len(columns))

    def similarity(self, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """(n,) products of every vector with the mean of the given rows."""
        mean = np.zeros(self._width)
        for row in rows:
            part = slice(self._starts[row], self._ends[row])
            mean[self._words[part]] += self._values[part] / len(rows)  # a row has a word once
        products = self._values * mean[self._words]
        return np.bincount(self._rows, products, len(self._ends)).astype(np.float64)


ENTRY = BaselineEntry(
    name="text-knn",
    description="Cosine similarity of TF-IDF vectors of titles and texts with the history's mean.",
    factory=lambda items, settings, seed: TextKNN(items),
)
