"""The recommender's question, the rows it is trained on, and the tokens that answer it.

A row is a user, a candidate and the reply: yes for what the user chose next, no for an item that the user
never touched. Loss is on the reply alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.msr import prompts
from llmctl.msr.settings import Arm
from llmctl.msr.summaries.users import Wording
from llmctl.msr.types import History
from llmctl.pictures import read_picture
from llmctl.sampling.common import derive_seed


@dataclass(frozen=True)
class Case:
    """A user to recommend to: what is known of the preferences, and the whole history."""

    user: str
    preferences: str
    history: History  # before the target


@dataclass(frozen=True)
class Question:
    """How an arm asks about a candidate."""

    arm: Arm
    wording: Wording
    images: Mapping[str, str] = field(default_factory=dict)  # files that can be read, for the image variant
    max_side: int = 672

    def ask(self, case: Case, item: str) -> Conversation:
        """The conversation for a candidate, its picture opened where the arm shows it."""
        return [{"role": "user", "content": self._content(case, item, self._opened(item))}]

    def row(self, case: Case, item: str, answer: str) -> list[dict[str, Any]]:
        """The messages of a training row, its picture named where the arm shows it."""
        content = self._content(case, item, self._named(item))
        return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]

    def _content(self, case: Case, item: str, picture: dict[str, Any] | None) -> Any:
        fields = {"preferences": case.preferences, "candidate": self.wording.line(item)}
        template = self.arm.recommender.prompt
        if picture is None:
            return prompts.fill(template, fields)
        before, after = template.split("{candidate}", 1)
        said = self.wording.title(item)  # the picture says the rest
        parts = [{"type": "text", "text": prompts.fill(before, fields)}, picture]
        return [*parts, {"type": "text", "text": said + prompts.fill(after, fields)}]

    def _opened(self, item: str) -> dict[str, Any] | None:
        if item not in self.images:
            return None
        found = read_picture(self.images[item], max_side=self.max_side)
        return None if found.image is None else {"type": "image", "image": found.image}

    def _named(self, item: str) -> dict[str, Any] | None:
        if item not in self.images:
            return None
        return {"type": "image", "path": self.images[item], "max_side": self.max_side}


def training_rows(
    question: Question, cases: Iterable[tuple[Case, str]], items: Sequence[str], passes: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of several passes over the users.

    Args:
        question: How candidates are asked about.
        cases: Training users, each with the item that was chosen next; read once.
        items: The catalogue, that negatives are drawn from.
        passes: How many times; one pass where negatives are fixed, which the trainer then repeats.
        seed: Of the run. A user's negatives depend on it, the user and the pass, not on who else there is.

    Raises:
        UserError: A user has touched all items.
    """
    known = list(cases)
    n = question.arm.recommender.negatives_per_positive
    for number in range(passes):
        for case, target in known:
            touched = {*case.history.items, target}
            yield {"messages": question.row(case, target, prompts.YES), "pass": number}
            for item in draw_negatives(items, touched, n, derive_seed(seed, "negatives", number, case.user)):
                yield {"messages": question.row(case, item, prompts.NO), "pass": number}


def draw_negatives(items: Sequence[str], touched: set[str], n: int, seed: int) -> list[str]:
    """Items that a user never touched, each as likely as any other.

    Raises:
        UserError: There are too few.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    if len(items) - len(touched) < n:
        raise UserError(
            f"a user has touched {len(touched):,} of {len(items):,} items, which leaves fewer than the {n} "
            "negatives that are needed: lower recommender.negatives_per_positive, or loosen filters"
        )
    while len(found) < n:
        item = items[int(rng.integers(len(items)))]
        if item not in touched:
            found[item] = None
    return list(found)


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens of a vocabulary that mean yes, and those that mean no."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, yes first."""
        return (*self.yes, *self.no)

    def probability(self, logprobs: Sequence[float]) -> tuple[float, float]:
        """P(yes) against no, and the share of all probability that is on either.

        P(yes) = sum of p over spellings of yes / (that sum + the sum over spellings of no), where the public
        code of MLLM-MSR reads one spelling of each.

        Args:
            logprobs: Natural logs, in the order of `ids`.
        """
        values = np.asarray(logprobs, dtype=np.float64)
        yes = np.logaddexp.reduce(values[: len(self.yes)])
        no = np.logaddexp.reduce(values[len(self.yes) :])
        return float(1 / (1 + np.exp(no - yes))), float(np.exp(np.logaddexp(yes, no)))


def find_answer_tokens(tokenizer: Any, model: str) -> AnswerTokens:
    """Every token that is yes or no, in any case, with or without a blank before it.

    Args:
        tokenizer: Of the model.
        model: Its name, for the message.

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
