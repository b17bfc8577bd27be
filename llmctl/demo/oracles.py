"""Oracles: scores that are computed with knowledge of the demo's ground truth, or of a part of it.

Their metrics are upper bounds of what a comparison on this data can show: pictures against titles, and the
latest taste against the average one. They read the ground truth, so they are no baselines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmctl.demo.attributes import Look
from llmctl.demo.data import DemoData
from llmctl.demo.users import DemoUser
from llmctl.msr.data.candidates import NegativePool, draw_candidates
from llmctl.msr.evaluation.bounds import bounds_table as oracle_table
from llmctl.msr.evaluation.bounds import measure_bounds, write_bounds
from llmctl.msr.recipe import CandidateSettings
from llmctl.msr.types import CandidateList, History
from llmctl.runs import Estimate

__all__ = ["ORACLES", "draw_lists", "measure_oracles", "oracle_scores", "oracle_table", "write_oracles"]

_TIE_BREAK = 1e-3  # a favourite category decides between items that colour leaves tied


def write_oracles(data: DemoData) -> None:
    """Write the scores of every oracle for every user and item, as a data set's file of upper bounds.

    Raises:
        UserError: The disk refused.
    """

    def rows() -> Iterator[tuple[str, str, Sequence[float]]]:
        for name, user in data.users.items():
            shares = _colour_shares(user, data.looks)
            for item, look in data.looks.items():
                yield name, item, [score(user, shares, look) for score in ORACLES.values()]

    write_bounds(data.bounds, list(ORACLES), rows())


def oracle_scores(data: DemoData, oracle: str, candidates: Iterable[CandidateList]) -> NDArray[np.float64]:
    """The scores of an oracle on candidate lists.

    Args:
        data: With the ground truth.
        oracle: A name in `ORACLES`.
        candidates: Lists of U users, N items each.

    Returns:
        (U, N) scores, higher is better.

    Raises:
        KeyError: There is no such oracle, user or item.
    """
    score = ORACLES[oracle]
    rows = []
    for one in candidates:
        user = data.users[one.user]
        shares = _colour_shares(user, data.looks)
        rows.append([score(user, shares, data.looks[item]) for item in one.items])
    return np.array(rows, dtype=np.float64)


def measure_oracles(data: DemoData, candidates: Iterable[CandidateList]) -> dict[str, dict[str, Estimate]]:
    """Every metric of every oracle on candidate lists, with a bootstrap interval over users."""
    lists = list(candidates)
    return measure_bounds({name: oracle_scores(data, name, lists) for name in ORACLES}, lists)


def draw_lists(data: DemoData, negatives: int = 20, seed: int = 0) -> list[CandidateList]:
    """A candidate list for every user, drawn as those of a run are, with uniform negatives."""
    items = list(data.looks)
    pool = NegativePool.of(items, np.ones(len(items), np.int64), "uniform")
    sequences = (
        History(user.user, user.items, tuple(map(float, user.timestamps))) for user in data.users.values()
    )
    return list(draw_candidates(sequences, pool, CandidateSettings(negatives=negatives), seed))


def _colour_shares(user: DemoUser, looks: dict[str, Look]) -> dict[str, float]:
    """Share of each colour in the history before the target."""
    counts = Counter(looks[item].colour for item in user.items[:-1])
    return {colour: count / counts.total() for colour, count in counts.items()}


def _latest(user: DemoUser, shares: dict[str, float], look: Look) -> float:
    return (look.colour == user.latest_colour) + _TIE_BREAK * (look.category in user.favourites)


def _average(user: DemoUser, shares: dict[str, float], look: Look) -> float:
    return shares.get(look.colour, 0.0) + _TIE_BREAK * (look.category in user.favourites)


def _titles(user: DemoUser, shares: dict[str, float], look: Look) -> float:
    return float(look.category in user.favourites)


ORACLES: dict[str, Callable[[DemoUser, dict[str, float], Look], float]] = {
    "oracle: latest taste": _latest,  # sees pictures, knows the colour of the latest phase
    "oracle: average taste": _average,  # sees pictures, weighs the whole history equally
    "oracle: titles alone": _titles,  # knows the favourite categories, sees no picture
}
