"""The frozen candidate lists: one true next item and N that the user never touched.

Every model and baseline ranks the same lists, so their hash says what a figure rests on. It covers the
version of the data too: a list that was made from other data is refused.
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

_ROUNDS = 8  # of drawing with rejection, before the items left over are weighed one by one


@dataclass(frozen=True)
class Pool:
    """The items that negatives are drawn from."""

    items: Sequence[str]  # I
    weights: NDArray[np.float64]  # (I,) how likely each is drawn, up to a factor; positive

    @classmethod
    def of(cls, items: Sequence[str], counts: NDArray[np.int64], draw: str) -> Pool:
        """A pool for a way to draw.

        Args:
            items: I of them.
            counts: (I,) interactions of each.
            draw: uniform or popularity.
        """
        weights = np.ones(len(items)) if draw == "uniform" else counts.astype(np.float64)
        return cls(items, weights)


def draw_candidates(
    sequences: Iterable[History], pool: Pool, settings: CandidateSettings, seed: int
) -> Iterator[CandidateList]:
    """One list a user, in an order of its own in which the true item stands anywhere.

    A user's list depends on the seed and the user, not on who else there is.

    Args:
        sequences: All items of each user; the last one is the true next item.
        pool: The catalogue.
        settings: How many negatives.
        seed: Of the run.

    Raises:
        UserError: A user has touched so much that too few items are left.
    """
    places = {item: place for place, item in enumerate(pool.items)}
    bounds = np.cumsum(pool.weights)
    n = settings.negatives
    for sequence in sequences:
        touched = {places[item] for item in sequence.items}
        if len(pool.items) - len(touched) < n:
            raise UserError(
                f"user {sequence.user!r} never touched {len(pool.items) - len(touched)} of "
                f"{len(pool.items)} items, but {n} negatives are needed: lower candidates.negatives, or "
                "loosen filters"
            )
        rng = np.random.default_rng(derive_seed(seed, "candidates", sequence.user))
        negatives = _draw(rng, bounds, pool.weights, touched, n)
        items = [sequence.items[-1], *(pool.items[place] for place in negatives)]
        order = rng.permutation(n + 1)
        labels = tuple(int(place == 0) for place in order)
        yield CandidateList(sequence.user, tuple(items[place] for place in order), labels)


def _draw(
    rng: np.random.Generator,
    bounds: NDArray[np.float64],
    weights: NDArray[np.float64],
    touched: set[int],
    n: int,
) -> list[int]:
    """Places of n different items, one after another with probability as their weight among those left."""
    found: dict[int, None] = {}
    for _ in range(_ROUNDS):
        draws = np.searchsorted(bounds, rng.random(2 * n) * bounds[-1], side="right")
        for place in draws.tolist():  # dropping what came before is drawing from what is left
            if place not in touched and place not in found and place < len(weights):
                found[place] = None
                if len(found) == n:
                    return list(found)
    left = np.ones(len(weights), bool)
    left[[*touched, *found]] = False
    rest = np.flatnonzero(left)
    chances = weights[rest] / weights[rest].sum()
    return [*found, *rng.choice(rest, n - len(found), replace=False, p=chances).tolist()]


class CandidateDigest:
    """The hash of lists and of the data they were made from, list by list."""

    def __init__(self, data_version: str) -> None:
        self._digest = hashlib.sha256(data_version.encode())

    def add(self, one: CandidateList) -> None:
        """Take in the next list."""
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
