"""GRU4Rec and SASRec, as implemented by the library cornac.

Its models score the whole catalogue for any history, also of users that they were not trained on, which a
split by user needs. The library is an optional package; it is imported when a model is fitted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmctl.errors import UserError
from llmctl.msr.baselines.base import ItemIndex
from llmctl.msr.baselines.registry import BaselineEntry
from llmctl.msr.types import History, Item
from llmctl.runs import Recipe

REQUIREMENT = "cornac>=3.0.1,<3.1"


class SequenceSettings(Recipe):
    """How GRU4Rec and SASRec are trained (by cornac); other settings are that library's defaults."""

    width: int = Field(default=64, ge=1)
    """Embedding and hidden width."""
    epochs: int = Field(default=10, ge=1)
    """Epochs over the training histories."""
    batch_size: int = Field(default=128, ge=2)
    """Examples per step."""
    negatives: int = Field(default=512, ge=1)
    """Shared negatives per step."""
    max_history: int = Field(default=20, ge=1)
    """Last items of a history that SASRec sees; its time grows with this number."""


Builder = Callable[[Any, SequenceSettings, int], Any]  # (cornac.models, settings, seed) -> untrained model


class CornacBaseline:
    """A next-item model of cornac.

    Items that no training user chose have no learned vector: they get the lowest score that any item has.

    Args:
        items: The catalogue, I items.
        build: Gives the untrained model.
        settings: How it is trained.
        seed: Seed for weights, order and negatives.
    """

    def __init__(
        self, items: Sequence[Item], build: Builder, settings: SequenceSettings, seed: int = 0
    ) -> None:
        self._index = ItemIndex(items)
        self._build, self._settings, self._seed = build, settings, seed

    def fit(self, histories: Iterable[History]) -> None:
        """Train; the global random states of NumPy and torch are left as they were.

        Raises:
            UserError: cornac is not installed.
        """
        data, models = import_cornac()
        rows = [
            (history.user, history.user, int(index), position)
            for history in histories
            for position, index in enumerate(self._index.of_history(history))
        ]
        with _own_random_state(self._seed):
            data_set = data.SequentialDataset.build(rows, fmt="USIT", seed=self._seed)
            self._model = self._build(models, self._settings, self._seed).fit(data_set)
        self._numbers = np.full(len(self._index), -1)  # (I,) cornac's index of each item; -1 where unseen
        self._numbers[list(data_set.iid_map)] = list(data_set.iid_map.values())

    def score_items(self, history: History) -> NDArray[np.floating]:
        """(I,) scores; those of unseen items are all the lowest."""
        numbers = self._numbers[self._index.of_history(history)]
        found = np.asarray(self._model.score(0, numbers[numbers >= 0].tolist()), dtype=np.float64)
        return np.where(self._numbers >= 0, found[self._numbers], found.min())


def build_gru4rec(models: Any, settings: SequenceSettings, seed: int) -> Any:
    """A recurrent network over the history.

    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016).
    """
    return models.GRU4Rec(
        layers=[settings.width],
        n_epochs=settings.epochs,
        batch_size=settings.batch_size,
        n_sample=settings.negatives,
        seed=seed,
    )


def build_sasrec(models: Any, settings: SequenceSettings, seed: int) -> Any:
    """A self-attentive network over the last items of the history.

    Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). cornac trains it on every
    prefix of a history, by cross-entropy over shared negatives rather than by one negative per position.
    """
    return models.SASRec(
        embedding_dim=settings.width,
        n_epochs=settings.epochs,
        batch_size=settings.batch_size,
        n_sample=settings.negatives,
        max_len=settings.max_history,
        seed=seed,
    )


def import_cornac() -> tuple[Any, Any]:
    """The modules `cornac.data` and `cornac.models`.

    Raises:
        UserError: cornac is not installed.
    """
    try:
        from cornac import data, models
    except ImportError as error:
        raise UserError(
            f"{GRU4REC.name} and {SASREC.name} need the package cornac, which cannot be imported ({error}): "
            f"pip install '{REQUIREMENT}', or leave them out of baselines.names"
        ) from error
    return data, models


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed NumPy's and torch's global generators, which cornac draws from, and restore them after."""
    import torch

    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def _check_cornac() -> None:
    import_cornac()


GRU4REC = BaselineEntry(
    name="gru4rec",
    description="A recurrent network over the history (Hidasi et al., 2016).",
    factory=lambda items, settings, seed: CornacBaseline(items, build_gru4rec, settings, seed),
    settings=SequenceSettings,
    check=_check_cornac,
)
SASREC = BaselineEntry(
    name="sasrec",
    description="A self-attentive network over the last items (Kang and McAuley, 2018).",
    factory=lambda items, settings, seed: CornacBaseline(items, build_sasrec, settings, seed),
    settings=SequenceSettings,
    check=_check_cornac,
)
