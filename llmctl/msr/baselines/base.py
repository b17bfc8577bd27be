"""The one interface of all baselines: fit on training histories, score candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.types import CandidateList, History, Item


class Baseline(ABC):
    """A recommender that gives every item of a catalogue a score for a history.

    Args:
        items: The catalogue, I items; `score_items` follows its order.

    Raises:
        ValueError: An item is there twice.
    """

    name: ClassVar[str]

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.places = {item.id: place for place, item in enumerate(items)}
        if len(self.places) != len(items):
            raise ValueError("an item is in the catalogue twice")

    @abstractmethod
    def fit(self, histories: Iterable[History]) -> None:
        """Learn from the whole histories of the training users, their last items included."""

    @abstractmethod
    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) scores, the greater the better; those of the history's own items mean nothing."""

    def score(self, histories: Sequence[History], candidates: Sequence[CandidateList]) -> NDArray[np.float64]:
        """Score the candidates of U users.

        Args:
            histories: U; what came before the item to predict.
            candidates: U lists of N items each, of the same users.

        Returns:
            (U, N) scores, the greater the better.

        Raises:
            UserError: A candidate is not in the catalogue.
        """
        rows = [
            self.score_items(history)[self.candidate_places(one)]
            for history, one in zip(histories, candidates, strict=True)
        ]
        return np.array(rows, dtype=np.float64)

    def candidate_places(self, candidates: CandidateList) -> NDArray[np.int64]:
        """(N,) places of a user's candidates in the catalogue.

        Raises:
            UserError: One is not in it.
        """
        try:
            return np.array([self.places[item] for item in candidates.items], dtype=np.int64)
        except KeyError as error:
            raise UserError(
                f"candidate {error.args[0]!r} of user {candidates.user!r} is not among the "
                f"{len(self.items)} items: use the lists that were made with this catalogue"
            ) from error

    def history_places(self, history: History) -> NDArray[np.int64]:
        """Places of a history's items, in order; items that the catalogue lacks are left out."""
        return np.array([self.places[i] for i in history.items if i in self.places], dtype=np.int64)
