"""The recommender's prompt, its training examples, and the tokens that answer it.

A training example is a user, a candidate and the answer: yes for the item that the user chose next, no for
an item that the user never interacted with. The loss is on the answer alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.msr import prompts
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.summaries.wording import Wording
from llmctl.msr.types import History
from llmctl.pictures import read_picture
from llmctl.sampling.common import derive_seed


@dataclass(frozen=True)
class Case:
    """A user to recommend to."""

    user: str
    preferences: str  # the summary, or the list of items where there is none
    history: History  # without the target


@dataclass(frozen=True)
class Question:
    """How an arm prompts for a candidate."""

    arm: RecommenderArm
    wording: Wording
    images: Mapping[str, str] = field(default_factory=dict)  # readable files by item, for the image variant
    max_side: int = 672

    def conversation(self, case: Case, item: str) -> Conversation:
        """The prompt for a candidate, with its picture opened where the arm shows it."""
        return [{"role": "user", "content": self._content(case, item, self._image(item))}]

    def training_messages(self, case: Case, item: str, answer: str) -> list[dict[str, Any]]:
        """The messages of a training example, with the path of its picture where the arm shows it."""
        content = self._content(case, item, self._image_path(item))
        return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]

    def _content(self, case: Case, item: str, picture: dict[str, Any] | None) -> Any:
        fields = {"preferences": case.preferences, "candidate": self.wording.line(item)}
        template = self.arm.recommender.prompt
        if picture is None:
            return prompts.fill(template, fields)
        before, after = template.split("{candidate}", 1)
        title = self.wording.title(item)  # the picture takes the place of the description
        parts = [{"type": "text", "text": prompts.fill(before, fields)}, picture]
        return [*parts, {"type": "text", "text": title + prompts.fill(after, fields)}]

    def _image(self, item: str) -> dict[str, Any] | None:
        if item not in self.images:
            return None
        found = read_picture(self.images[item], max_side=self.max_side)
        return None if found.image is None else {"type": "image", "image": found.image}

    def _image_path(self, item: str) -> dict[str, Any] | None:
        if item not in self.images:
            return None
        return {"type": "image", "path": self.images[item], "max_side": self.max_side}


@dataclass(frozen=True)
class TrainingRow:
    """A training example of the recommender."""

    messages: list[dict[str, Any]]
    epoch: int  # from 0

    def to_dict(self) -> dict[str, Any]:
        """A line of data/rows-<arm>.jsonl, whose key "pass" is the epoch."""
        return {"messages": self.messages, "pass": self.epoch}


def training_rows(
    question: Question, cases: Iterable[tuple[Case, str]], items: Sequence[str], epochs: int, seed: int
) -> Iterator[TrainingRow]:
    """Training examples of several epochs over the users.

    Args:
        question: How the arm prompts for candidates.
        cases: Training users, each with the item that was chosen next; read once.
        items: The catalogue that negatives are drawn from.
        epochs: The number of epochs; 1 where negatives are fixed, which the trainer then repeats.
        seed: Seed of the run. A user's negatives depend on it, the user and the epoch, not on other users.

    Raises:
        UserError: A user has interacted with too many items.
    """
    known = list(cases)
    n = question.arm.recommender.negatives_per_positive
    for number in range(epochs):
        for case, target in known:
            touched = {*case.history.items, target}
            yield TrainingRow(question.training_messages(case, target, prompts.YES), number)
            for item in draw_negatives(items, touched, n, derive_seed(seed, "negatives", number, case.user)):
                yield TrainingRow(question.training_messages(case, item, prompts.NO), number)


def draw_negatives(items: Sequence[str], touched: set[str], n: int, seed: int) -> list[str]:
    """Items that a user never interacted with, drawn uniformly.

    Raises:
        UserError: There are too few.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    if len(items) - len(touched) < n:
        raise UserError(
            f"a user has interacted with {len(touched):,} of {len(items):,} items, which leaves fewer than "
            f"the {n} negatives that are needed: lower recommender.negatives_per_positive, or loosen filters"
        )
    while len(found) < n:
        item = items[int(rng.integers(len(items)))]
        if item not in touched:
            found[item] = None
    return list(found)


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens of a vocabulary that are a spelling of yes, and those that are a spelling of no."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, yes first."""
        return (*self.yes, *self.no)

    def probability(self, logprobs: Sequence[float]) -> tuple[float, float]:
        """The probability of yes against no, and the share of all probability that is on either.

        P(yes) = sum of p over spellings of yes / (that sum + the sum over spellings of no), where the public
        code of MLLM-MSR reads one spelling of each.

        Args:
            logprobs: Log-probabilities (natural log) of the tokens, in the order of `ids`.
        """
        values = np.asarray(logprobs, dtype=np.float64)
        yes = np.logaddexp.reduce(values[: len(self.yes)])
        no = np.logaddexp.reduce(values[len(self.yes) :])
        return float(1 / (1 + np.exp(no - yes))), float(np.exp(np.logaddexp(yes, no)))


def find_answer_tokens(tokenizer: Any, model: str) -> AnswerTokens:
    """Find every token that is yes or no, in upper or lower case, with or without a blank before it.

    Args:
        tokenizer: The tokenizer of the model.
        model: The name of the model, for the message.

    Raises:
        UserError: The vocabulary lacks one of the two as a token of its own.
    """
    found: dict[str, list[int]] = {prompts.YES: [], prompts.NO: []}
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    for token, text in enumerate(texts):
        if (word := text.strip().lower()) in found:
            found[word].append(token)
    for word, ids in found.items():
        if not ids:
            raise UserError(
                f"{model} has no token that is {word!r}, but the score of a candidate is the probability of "
                "yes against no: take a model whose vocabulary has both words"
            )
    return AnswerTokens(tuple(found[prompts.YES]), tuple(found[prompts.NO]))
