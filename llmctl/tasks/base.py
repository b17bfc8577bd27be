"""What the built-in tasks share: one conversation form, one feedback form, rows as problems."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.messages import Message
from llmctl.tasks.rows import Row, RowSource
from llmctl.tasks.types import Feedback, Problem

CORRECT = "That is correct."
INCORRECT = "That is not correct."  # no more than this: RISE (Qu et al. 2024) tells only that it was wrong


class BaseTask(ABC):
    """A task from three parts: problems of a split, the answer of a reply, whether two answers agree.

    Attributes:
        name: What `get_task` knows the task by.
        system: The system prompt.
        form: How an answer is wanted; ends the sentence "No answer could be read: ...".
        default_split: The split of `for problem in task` and of `len(task)`.
    """

    name: str
    system: str
    form: str
    default_split: ClassVar[str] = "train"

    @abstractmethod
    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        """Problems of a split; may give more than `limit`."""

    @abstractmethod
    def read(self, problem: Problem, text: str) -> str | None:
        """The answer of a reply, normalized for votes; None where none can be read."""

    @abstractmethod
    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether an answer from `read` is right."""

    def __iter__(self) -> Iterator[Problem]:
        """Problems of the default split, in a fixed order."""
        return self.problems(self.default_split)

    def problems(self, split: str = "train", limit: int | None = None, seed: int = 0) -> Iterator[Problem]:
        """Problems of a split, lazily, in a fixed order for a fixed seed.

        Args:
            split: "train" or "test"; a folder of files may have others.
            limit: Problems at most; None for all.
            seed: 0 keeps the stored order, another value gives a permutation (or other problems, where
                they are generated).

        Raises:
            UserError: A negative limit, no such split, a missing file, or a broken row (with its line).
        """
        if limit is not None and limit < 0:
            raise UserError(f"limit is {limit}, but it must be 0 or more: leave it out to take all problems")
        if limit == 0:
            return iter(())
        return islice(self._stream(split, limit, seed), limit)

    def examples(self) -> list[tuple[str, str]]:
        """Worked examples for the conversation: pairs of a prompt and its reply."""
        return []

    def warm_up(self) -> float:
        """Load what the first check would have to wait for; returns the seconds that it took."""
        return 0.0

    def conversation(self, problem: Problem) -> list[Message]:
        """The messages that pose the problem: system prompt, worked examples, the problem itself."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for prompt, reply in self.examples():
            messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        return [*messages, {"role": "user", "content": problem.prompt}]

    def check(self, problem: Problem, text: str) -> Feedback:
        """Judge a reply: reward 1 right, 0 wrong, -1 where no answer can be read.

        The text is never evaluated as code, raises nothing, and is judged within a second; the first check
        may load packages before it (see `warm_up`).
        """
        answer = self.read(problem, text)
        if answer is None:
            return Feedback(-1.0, False, f"No answer could be read: {self.form}")
        if self.is_correct(problem, answer):
            return Feedback(1.0, True, CORRECT, answer)
        return Feedback(0.0, False, INCORRECT, answer)


class RowTask(BaseTask):
    """A task whose problems are the rows of a source."""

    source: RowSource

    @abstractmethod
    def problem(self, row: Row) -> Problem:
        """A problem from a row.

        Raises:
            UserError: The row is incomplete; names its place.
        """

    def __len__(self) -> int:
        """Problems of the default split; a file is read through for it, but not parsed."""
        return self.source.count(self.default_split)

    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        return map(self.problem, self.source.rows(split, seed))
