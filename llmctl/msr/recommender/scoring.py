"""Score candidates: the probability that a model answers yes, and the journal that holds it.

journal/eval-<model>.jsonl     one RankedList per test user, a chunk of users per line
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.data.prepared import Journals
from llmctl.msr.recommender.prompt import AnswerTokens, Case, Question
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.types import CandidateList
from llmctl.sampling import Sampler, open_sampler


@dataclass(frozen=True)
class RankedList:
    """A model's scores for the candidates of one user."""

    user: str
    yes: tuple[float, ...]  # N, probability of yes against no
    mass: tuple[float, ...]  # N, share of all probability that is on yes or no

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a record of the journal."""
        return cls(record["user"], tuple(record["yes"]), tuple(record["mass"]))

    def to_record(self) -> dict[str, Any]:
        """The record of the journal."""
        return asdict(self)


def open_recommender(arm: RecommenderArm, trained: Path | None) -> Sampler:
    """A sampler on an arm's base model (None), or on the model in the folder of its training."""
    settings = arm.recommender.sampler
    model, adapter = arm.recommender.model, trained
    if trained is not None and not (trained / "adapter_config.json").is_file():
        model, adapter = str(trained), None  # fully fine-tuned
    return open_sampler(model, engine=settings.engine, adapter=adapter, **settings.options)


def tokenizer_of(sampler: Sampler) -> Any:
    """The tokenizer of a sampler.

    Raises:
        UserError: The engine gives no access to it.
    """
    found = getattr(sampler, "tokenizer", None)
    if found is None:
        raise UserError(
            f"engine {sampler.info.engine} does not show its vocabulary, but a score is read from the tokens "
            "for yes and no: set recommender.sampler.engine to transformers or vllm"
        )
    return found


def score_chunk(
    sampler: Sampler,
    tokens: AnswerTokens,
    question: Question,
    chunk: Sequence[tuple[Case, CandidateList]],
) -> list[RankedList]:
    """Score the candidates of several users in one batch; one list per user, in order."""
    prompts = [question.conversation(case, item) for case, lists in chunk for item in lists.items]
    rows = iter(sampler.next_token_logprobs(prompts, tokens.ids))
    ranked = []
    for case, lists in chunk:
        found = [tokens.probability(next(rows)) for _ in lists.items]
        ranked.append(RankedList(case.user, tuple(yes for yes, _ in found), tuple(mass for _, mass in found)))
    return ranked


def read_scores(run: Journals, model: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(U, N) probabilities of yes and (U, N) masses on yes or no, from the journal of an evaluation."""
    ranked = [RankedList.from_record(record) for record in run.journal(f"eval-{model}")]
    return np.array([one.yes for one in ranked]), np.array([one.mass for one in ranked])
