"""Recommend items to one user of a run, with the preferences that the model was shown as the reason.

Scoring a whole catalogue would take a language model hours, so cheap baselines choose a pool of items to
score: items that users with a similar history chose, then the most popular ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.msr.baselines.item_knn import ItemKNN
from llmctl.msr.baselines.popularity import Popularity
from llmctl.msr.recommender.examples import CaseReader
from llmctl.msr.recommender.prompt import Case, find_answer_tokens
from llmctl.msr.recommender.scoring import open_recommender, score_chunk, tokenizer_of
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.types import CandidateList


@dataclass(frozen=True)
class Recommendation:
    """An item for a user."""

    item: str
    title: str
    description: str  # of its picture, where the arm shows it; else empty
    yes: float  # probability of yes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the keys of the first version of the format."""
        return {"item": self.item, "title": self.title, "said": self.description, "yes": self.yes}


@dataclass(frozen=True)
class Recommendations:
    """The items recommended to a user, and the reason."""

    user: str
    arm: str
    preferences: str  # the reason: the preferences that the model was shown
    scored: int  # number of items that were scored
    items: tuple[Recommendation, ...]  # the best first

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the keys of the first version of the format."""
        return {
            "user": self.user,
            "arm": self.arm,
            "preferences": self.preferences,
            "asked": self.scored,
            "items": [item.to_dict() for item in self.items],
        }


def recommend_to(
    reader: CaseReader, arm: RecommenderArm, user: str, top: int = 10, pool: int = 100
) -> Recommendations:
    """The items with the highest probability of yes under an arm's model.

    Args:
        reader: Of the run; the arm is trained, unless its recipe has no training.
        arm: Which recommender.
        user: A training or test user of the run.
        top: The number of items to return.
        pool: The number of items to score.

    Raises:
        UserError: There is no such user, or the arm is not trained yet.
    """
    if pool < top:
        raise UserError(
            f"--pool is {pool} and --top is {top}, but items are chosen from the pool: raise --pool"
        )
    case = reader.case_of(arm, user)
    items = tuple(choose_pool(reader, case, pool))
    candidates = CandidateList(user, items, (0,) * len(items))
    sampler = open_recommender(arm, None if arm.recommender.train is None else reader.trained(arm))
    try:
        tokens = find_answer_tokens(tokenizer_of(sampler), arm.recommender.model)
        (ranked,) = score_chunk(sampler, tokens, reader.question(arm), [(case, candidates)])
    finally:
        sampler.close()
    descriptions = reader.wording(arm).descriptions
    order = np.argsort(-np.array(ranked.yes), kind="stable")[:top]
    best = tuple(
        Recommendation(item, reader.titles[item], descriptions.get(item, ""), ranked.yes[position])
        for position, item in ((position, items[position]) for position in order)
    )
    return Recommendations(user, arm.name, case.preferences, len(items), best)


def choose_pool(reader: CaseReader, case: Case, size: int) -> Iterator[str]:
    """Items that the user never interacted with, likely ones first."""
    items = list(reader.prepared.items())
    neighbours, popular = ItemKNN(items), Popularity(items)
    for baseline in (neighbours, popular):
        baseline.fit(reader.prepared.sequences("train"))
    near, often = neighbours.score_items(case.history), popular.score_items(case.history)
    touched = set(case.history.items)
    ranked = (items[index].id for index in np.lexsort((-often, -near)))
    for number, item in enumerate(item for item in ranked if item not in touched):
        if number == size:
            return
        yield item
