"""GRU4Rec and SASRec, as the library cornac has them.

Its models score the whole catalogue for any history, also of users that they never saw, which is what a
split by user needs. The library is an optional package, imported when a model is fitted.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.baselines.base import Baseline
from llmctl.msr.recipe import SequenceSettings
from llmctl.msr.types import History, Item

REQUIREMENT = "cornac>=3.0.1,<3.1"


class CornacBaseline(Baseline):
    """A next-item model of cornac.

    Items that no training user chose have no learned vector: they get the lowest score that any item has.

    Args:
        items: The catalogue.
        settings: How it is trained.
        seed: Of weights, order and negatives.
    """

    def __init__(self, items: Sequence[Item], settings: SequenceSettings, seed: int = 0) -> None:
        super().__init__(items)
        self._settings, self._seed = settings, seed

    @abstractmethod
    def _make(self, models: Any) -> Any:
        """The untrained model, of `cornac.models`."""

    def fit(self, histories: Iterable[History]) -> None:
        """Train; the random state of NumPy and torch outside is left as it was.

        Raises:
            UserError: cornac is not installed.
        """
        data, models = import_cornac()
        rows = [
            (history.user, history.user, int(place), position)
            for history in histories
            for position, place in enumerate(self.history_places(history))
        ]
        with _own_random_state(self._seed):
            data_set = data.SequentialDataset.build(rows, fmt="USIT", seed=self._seed)
            self._model = self._make(models).fit(data_set)
        self._numbers = np.full(len(self.items), -1)  # (I,) what cornac calls each item; -1 where unseen
        self._numbers[list(data_set.iid_map)] = list(data_set.iid_map.values())

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) scores; those of unseen items are all the lowest."""
        numbers = self._numbers[self.history_places(history)]
        found = np.asarray(self._model.score(0, numbers[numbers >= 0].tolist()), dtype=np.float64)
        return np.where(self._numbers >= 0, found[self._numbers], found.min())


class Gru4Rec(CornacBaseline):
    """A recurrent network over the history.

    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016).
    """

    name = "gru4rec"

    def _make(self, models: Any) -> Any:
        s = self._settings
        return models.GRU4Rec(
            layers=[s.width],
            n_epochs=s.epochs,
            batch_size=s.batch_size,
            n_sample=s.negatives,
            seed=self._seed,
        )


class SasRec(CornacBaseline):
    """A self-attentive network over the last items of the history.

    Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). cornac trains it on every
    prefix of a history, by cross-entropy over shared negatives rather than by one negative a position.
    """

    name = "sasrec"

    def _make(self, models: Any) -> Any:
        s = self._settings
        return models.SASRec(
            embedding_dim=s.width,
            n_epochs=s.epochs,
            batch_size=s.batch_size,
            n_sample=s.negatives,
            max_len=s.max_history,
            seed=self._seed,
        )


def import_cornac() -> tuple[Any, Any]:
    """The modules `cornac.data` and `cornac.models`.

    Raises:
        UserError: It is not installed.
    """
    try:
        from cornac import data, models
    except ImportError as error:
        raise UserError(
            f"gru4rec and sasrec need the package cornac, which can not be imported ({error}): "
            f"pip install '{REQUIREMENT}', or leave them out of baselines.names"
        ) from error
    return data, models


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed NumPy's and torch's global generators, which cornac draws from, and put them back."""
    import torch

    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
