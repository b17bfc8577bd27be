"""The words of tasks: a problem, feedback on an answer, and what a task owes.

A task gives problems, the conversation that poses one, a check of a reply and a key by which replies
are voted on. Adding a task is one file with one class and one test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from llmctl.messages import Message

FILE_OR_HUB = "path= a JSONL file or folder; without it, the Hub"


@dataclass(frozen=True)
class TaskInfo:
    """The row of a task in `llmctl tasks list`; a task's class carries it as `info`."""

    name: str
    description: str  # one line
    needs: str = ""  # the file or package that the task needs, "" for nothing
    splits: tuple[str, ...] = ("train", "test")


@dataclass(frozen=True)
class Problem:
    """One verifiable problem."""

    id: str  # unique and stable within the task and split
    prompt: str  # what the user message asks
    answer: str  # the reference answer, in the task's own form
    solution: str | None = None  # a whole reference reply that would be checked as right, where there is one
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Feedback:
    """What a check says of one reply."""

    reward: float  # 1 right, 0 wrong, -1 no answer could be read (as in the public RISE code)
    is_correct: bool
    message: str  # the sentence that the next user message opens with
    answer: str | None = None  # the answer as read from the reply and normalized; the key for voting


@runtime_checkable
class Task(Protocol):
    """What every task owes. `for problem in task` walks the default split lazily."""

    name: str

    def __iter__(self) -> Iterator[Problem]:
        """Problems of the default split, in a fixed order."""
        ...

    def problems(self, split: str = "train", limit: int | None = None, seed: int = 0) -> Iterator[Problem]:
        """Problems of a split, lazily, in a fixed order for a fixed seed.

        Raises:
            UserError: No such split, a missing file, or a broken row (with its line number).
        """
        ...

    def conversation(self, problem: Problem) -> list[Message]:
        """The messages that pose the problem: system prompt, worked examples, the problem itself."""
        ...

    def check(self, problem: Problem, text: str) -> Feedback:
        """Judge a reply. Never evaluates the text as code, never raises, answers within a second."""
        ...
