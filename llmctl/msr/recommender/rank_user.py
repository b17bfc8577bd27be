"""Recommend to one user of a run: score items that the user never touched, and give the reason.

Asking about a whole catalogue would take a language model hours, so a cheap model chooses the items that
are asked about: those that users with a like history chose, then the most popular ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.msr.baselines.counting import ItemKNN, Popularity
from llmctl.msr.phases import Phases, open_recommender, score_chunk, tokenizer_of
from llmctl.msr.recommender.prompt import Case, find_answer_tokens
from llmctl.msr.settings import Arm
from llmctl.msr.types import CandidateList


@dataclass(frozen=True)
class Recommendation:
    """An item for a user."""

    item: str
    title: str
    said: str  # of its picture, where the arm reads that
    yes: float  # P(yes)


@dataclass(frozen=True)
class Recommendations:
    """What is recommended to a user, and why."""

    user: str
    arm: str
    preferences: str  # the reason: what the model was told of the user
    asked: int  # items that were scored
    items: tuple[Recommendation, ...]  # the best first

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "items": [vars(item) for item in self.items]}


def recommend_to(phases: Phases, arm: Arm, user: str, top: int = 10, pool: int = 100) -> Recommendations:
    """The items that an arm's model says yes to most.

    Args:
        phases: Of the run; the arm is trained, unless its recipe trains none.
        arm: Which recommender.
        user: A training or test user of the run.
        top: Items wanted.
        pool: Items that are asked about.

    Raises:
        UserError: No such user, or the arm is not trained yet.
    """
    if pool < top:
        raise UserError(
            f"--pool is {pool} and --top is {top}, but items are chosen from the pool: raise --pool"
        )
    case = phases.case_of(arm, user)
    items = tuple(choose_pool(phases, case, pool))
    candidates = CandidateList(user, items, (0,) * len(items))
    sampler = open_recommender(arm, None if arm.recommender.train is None else phases.trained(arm))
    try:
        tokens = find_answer_tokens(tokenizer_of(sampler), arm.recommender.model)
        (record,) = score_chunk(sampler, tokens, phases.question(arm), [(case, candidates)])
    finally:
        sampler.close()
    said = phases.wording(arm).said
    order = np.argsort(-np.array(record["yes"]), kind="stable")[:top]
    best = tuple(
        Recommendation(item, phases.titles[item], said.get(item, ""), record["yes"][place])
        for place, item in ((place, items[place]) for place in order)
    )
    return Recommendations(user, arm.name, case.preferences, len(items), best)


def choose_pool(phases: Phases, case: Case, size: int) -> Iterator[str]:
    """Items that the user never touched, likely ones first."""
    items = list(phases.prepared.items())
    neighbours, popular = ItemKNN(items), Popularity(items)
    for baseline in (neighbours, popular):
        baseline.fit(phases.prepared.sequences("train"))
    near, often = neighbours.score_items(case.history), popular.score_items(case.history)
    touched = set(case.history.items)
    ranked = (items[place].id for place in np.lexsort((-often, -near)))
    for number, item in enumerate(item for item in ranked if item not in touched):
        if number == size:
            return
        yield item
