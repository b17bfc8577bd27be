"""What a recommender could reach on the demo data that knew the truth, or only a part of it.

Oracles bound what a comparison on this data can show: pictures against titles, and the latest taste against
the average one. They read the ground truth, so they are no baselines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmctl.demo.attributes import Look
from llmctl.demo.catalogue import DemoData, open_demo
from llmctl.demo.users import DemoUser
from llmctl.errors import UserError
from llmctl.msr.data.candidates import Pool, draw_candidates
from llmctl.msr.evaluation.metrics import rank_counts, summarize, user_metrics
from llmctl.msr.recipe import CandidateSettings
from llmctl.msr.tables import show
from llmctl.msr.types import CandidateList, History
from llmctl.runs import Estimate, Table

_TIE_BREAK = 1e-3  # a favourite category decides between items that colour leaves equal


def oracle_scores(data: DemoData, oracle: str, candidates: Iterable[CandidateList]) -> NDArray[np.float64]:
    """Scores that an oracle gives.

    Args:
        data: With the truth.
        oracle: One of `ORACLES`.
        candidates: Lists of U users of N items each.

    Returns:
        (U, N) scores, the greater the better.

    Raises:
        KeyError: No such oracle, user or item.
    """
    score = ORACLES[oracle]
    rows = []
    for one in candidates:
        user = data.users[one.user]
        likings = _colour_likings(user, data.looks)
        rows.append([score(user, likings, data.looks[item]) for item in one.items])
    return np.array(rows, dtype=np.float64)


def measure_oracles(data: DemoData, candidates: Iterable[CandidateList]) -> dict[str, dict[str, Estimate]]:
    """Every metric of every oracle on lists, with an interval by user."""
    lists = list(candidates)
    labels = np.array([one.labels for one in lists])
    return {
        name: summarize(user_metrics(rank_counts(oracle_scores(data, name, lists), labels)))
        for name in ORACLES
    }


def oracle_table(figures: Mapping[str, Mapping[str, Estimate]], negatives: int = 20) -> Table:
    """What `measure_oracles` found, for people.

    Args:
        figures: Of every oracle.
        negatives: Of each list.
    """
    columns = ("auc", "hr@3", "hr@5", "ndcg@5")
    rows = [[name, *(show(one[column]) for column in columns)] for name, one in figures.items()]
    n = next(iter(figures.values()))["auc"].n
    caption = (
        f"What one would reach who knew the truth, or a part of it: {n} users, {negatives} negatives each; "
        "95 % intervals by bootstrap over users."
    )
    return Table(["knows", *columns], rows, caption)


def bounds_of_run(interactions: Path, candidates: Iterable[CandidateList]) -> Table | None:
    """The oracles on a run's own lists, where its data are the demo's.

    Args:
        interactions: The run's file of interactions.
        candidates: Its lists.

    Returns:
        None for data whose truth nobody knows, or that were changed or removed since.
    """
    lists = list(candidates)
    try:
        data = open_demo(interactions.parent)
    except UserError:  # not the demo's; and a report is not lost for a part of it
        return None
    if any(one.user not in data.users or not data.looks.keys() >= set(one.items) for one in lists):
        return None
    return oracle_table(measure_oracles(data, lists), len(lists[0].items) - 1)


def draw_lists(data: DemoData, negatives: int = 20, seed: int = 0) -> list[CandidateList]:
    """A candidate list for every user, drawn as those of a run are, with uniform negatives."""
    items = list(data.looks)
    pool = Pool.of(items, np.ones(len(items), np.int64), "uniform")
    sequences = (
        History(user.user, user.items, tuple(map(float, user.timestamps))) for user in data.users.values()
    )
    return list(draw_candidates(sequences, pool, CandidateSettings(negatives=negatives), seed))


def _colour_likings(user: DemoUser, looks: dict[str, Look]) -> dict[str, float]:
    """Share of each colour in what came before the target."""
    counts = Counter(looks[item].colour for item in user.items[:-1])
    return {colour: count / counts.total() for colour, count in counts.items()}


def _latest(user: DemoUser, likings: dict[str, float], look: Look) -> float:
    return (look.colour == user.latest_colour) + _TIE_BREAK * (look.category in user.favourites)


def _average(user: DemoUser, likings: dict[str, float], look: Look) -> float:
    return likings.get(look.colour, 0.0) + _TIE_BREAK * (look.category in user.favourites)


def _titles(user: DemoUser, likings: dict[str, float], look: Look) -> float:
    return float(look.category in user.favourites)


ORACLES: dict[str, Callable[[DemoUser, dict[str, float], Look], float]] = {
    "oracle: latest taste": _latest,  # sees pictures, knows the colour of the latest phase
    "oracle: average taste": _average,  # sees pictures, takes the whole history alike
    "oracle: titles alone": _titles,  # knows the favourite categories, sees no picture
}
