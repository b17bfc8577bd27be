"""The interface of all baselines (fit on training histories, score every item), and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.types import CandidateList, History, Item


class Baseline(Protocol):
    """A recommender that scores every item of a catalogue, given a history."""

    def fit(self, histories: Iterable[History]) -> None:
        """Learn from the whole histories of the training users, their last items included."""
        ...

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) scores, higher is better; the scores of the history's own items are not used."""
        ...


class ItemIndex:
    """The index of every item of a catalogue.

    Args:
        items: The catalogue, I items.

    Raises:
        ValueError: An item occurs twice.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.indices = {item.id: index for index, item in enumerate(items)}
        if len(self.indices) != len(items):
            raise ValueError("an item is in the catalogue twice")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: str) -> int:
        return self.indices[item]

    def of_candidates(self, candidates: CandidateList) -> NDArray[np.int64]:
        """(N,) indices of a user's candidates.

        Raises:
            UserError: A candidate is not in the catalogue.
        """
        try:
            return np.array([self.indices[item] for item in candidates.items], dtype=np.int64)
        except KeyError as error:
            raise UserError(
                f"candidate {error.args[0]!r} of user {candidates.user!r} is not among the "
                f"{len(self)} items: use the lists that were made with this catalogue"
            ) from error

    def of_history(self, history: History) -> NDArray[np.int64]:
        """Indices of a history's items, in order; items that the catalogue lacks are left out."""
        return np.array([self.indices[i] for i in history.items if i in self.indices], dtype=np.int64)


def score_candidates(
    baseline: Baseline, index: ItemIndex, histories: Sequence[History], candidates: Sequence[CandidateList]
) -> NDArray[np.float64]:
    """Score the candidates of U users with a fitted baseline.

    Args:
        baseline: Fitted on the catalogue of `index`.
        index: The catalogue.
        histories: U histories, each without the item to predict.
        candidates: U lists of N items each, of the same users.

    Returns:
        (U, N) scores, higher is better.

    Raises:
        UserError: A candidate is not in the catalogue.
    """
    rows = [
        baseline.score_items(history)[index.of_candidates(one)]
        for history, one in zip(histories, candidates, strict=True)
    ]
    return np.array(rows, dtype=np.float64)
