"""The candidate lists: one true next item, and N items that the user never interacted with.

Every model and baseline ranks the same lists, so their hash is stored beside every metric. The hash covers
the version of the data too: a list that was made from other data is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.recipe import CandidateSettings
from llmctl.msr.types import CandidateList, History
from llmctl.sampling.common import derive_seed

_ROUNDS = 8  # rounds of rejection sampling, before negatives are drawn from exactly the items that are left


@dataclass(frozen=True)
class NegativePool:
    """The items that negatives are drawn from."""

    items: Sequence[str]  # I
    weights: NDArray[np.float64]  # (I,) proportional to the probability of each item; positive

    @classmethod
    def of(cls, items: Sequence[str], counts: NDArray[np.int64], draw: str) -> NegativePool:
        """A pool that is drawn from uniformly or by popularity.

        Args:
            items: I items.
            counts: (I,) interactions of each.
            draw: "uniform" or "popularity".
        """
        weights = np.ones(len(items)) if draw == "uniform" else counts.astype(np.float64)
        return cls(items, weights)


def draw_candidates(
    sequences: Iterable[History], pool: NegativePool, settings: CandidateSettings, seed: int
) -> Iterator[CandidateList]:
    """One list per user, in random order.

    A user's list depends on the seed and the user, and not on the other users.

    Args:
        sequences: All items of each user; the last one is the true next item.
        pool: The catalogue.
        settings: The number of negatives.
        seed: Seed of the run.

    Raises:
        UserError: A user has interacted with so many items that too few are left.
    """
    indices = {item: index for index, item in enumerate(pool.items)}
    bounds = np.cumsum(pool.weights)
    n = settings.negatives
    for sequence in sequences:
        touched = {indices[item] for item in sequence.items}
        if len(pool.items) - len(touched) < n:
            raise UserError(
                f"user {sequence.user!r} has {len(pool.items) - len(touched)} of {len(pool.items)} items "
                f"left that are not in the history, but {n} negatives are needed: lower "
                "candidates.negatives, or loosen filters"
            )
        rng = np.random.default_rng(derive_seed(seed, "candidates", sequence.user))
        negatives = _draw(rng, bounds, pool.weights, touched, n)
        items = [sequence.items[-1], *(pool.items[index] for index in negatives)]
        order = rng.permutation(n + 1)
        labels = tuple(int(position == 0) for position in order)
        yield CandidateList(sequence.user, tuple(items[position] for position in order), labels)


def _draw(
    rng: np.random.Generator,
    bounds: NDArray[np.float64],
    weights: NDArray[np.float64],
    touched: set[int],
    n: int,
) -> list[int]:
    """Indices of n different items, drawn one after another in proportion to the weights of those left."""
    found: dict[int, None] = {}
    for _ in range(_ROUNDS):
        draws = np.searchsorted(bounds, rng.random(2 * n) * bounds[-1], side="right")
        for index in draws.tolist():  # rejecting repeated draws is drawing from the items that are left
            if index not in touched and index not in found and index < len(weights):
                found[index] = None
                if len(found) == n:
                    return list(found)
    left = np.ones(len(weights), bool)
    left[[*touched, *found]] = False
    rest = np.flatnonzero(left)
    chances = weights[rest] / weights[rest].sum()
    return [*found, *rng.choice(rest, n - len(found), replace=False, p=chances).tolist()]


class CandidateDigest:
    """The hash of candidate lists and of the data version they were made from, one list after another."""

    def __init__(self, data_version: str) -> None:
        self._digest = hashlib.sha256(data_version.encode())

    def add(self, one: CandidateList) -> None:
        """Add the next list."""
        self._digest.update(json.dumps([one.user, one.items, one.labels]).encode() + b"\n")

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()


def check_same_data(place: str, made_from: str, data_version: str) -> None:
    """Refuse lists that were made from other data.

    Raises:
        UserError: The versions differ; both are named.
    """
    if made_from != data_version:
        raise UserError(
            f"{place} was made from data version {made_from}, but the data here has version {data_version}: "
            "use lists of the same files, filters and split, or leave candidates.path out to draw new ones"
        )
