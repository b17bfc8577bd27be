"""Sorting distinct letters: generated, one token per item, and hard enough for a second attempt to pay."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.base import BaseTask
from llmctl.tasks.splits import check_split, digest, split_of, stream_seed
from llmctl.tasks.types import Problem, TaskInfo

LETTERS_PROMPT_V1 = "Sort the letters alphabetically. Reply with the sorted letters only."
_PATIENCE = 20_000  # draws in a row without a new problem: the problems of these lengths are used up


class Letters(BaseTask):
    """Sort lists of distinct letters, e.g. "q d z a" to "a d q z".

    Every list is unsorted (sorted ones would reward echoing) and occurs once in a split; a hash of the list
    decides between train and test, so no list is in both. An answer can be checked by reading it, which a
    model can learn as well: repairing is easier than answering at once.

    Args:
        min_length: Letters in the shortest list, at least 2.
        max_length: Letters in the longest list, at most the size of the alphabet; lengths are drawn evenly.
        alphabet: The letters that lists are drawn from, each once.
        separator: The text between two letters, in problems and in answers.
        examples: Worked examples in the conversation, 0 to 3.
        size: Problems of a split where no limit is given; a limit may go beyond it.

    Raises:
        UserError: An option is out of its range.
    """

    info: ClassVar[TaskInfo] = TaskInfo(
        "letters", "sort letters; generated, leaves room for a second attempt"
    )
    name = info.name
    system = LETTERS_PROMPT_V1
    form = "reply with the sorted letters only."

    def __init__(
        self,
        min_length: int = 7,
        max_length: int = 10,
        alphabet: str = string.ascii_lowercase,
        separator: str = " ",
        examples: int = 1,
        size: int = 1000,
    ) -> None:
        if not alphabet.isalpha() or len(set(alphabet)) != len(alphabet):
            raise UserError(f"letters got alphabet {alphabet!r}, but letters that differ are needed: abcdef")
        if not 2 <= min_length <= max_length <= len(alphabet):
            raise UserError(
                f"letters got min_length {min_length} and max_length {max_length}, but 2 <= min_length <= "
                f"max_length <= {len(alphabet)} (the alphabet's size) is needed: change one of them"
            )
        if any(mark.isalpha() for mark in separator):
            raise UserError(
                f"letters got separator {separator!r}, which holds a letter: take ' ', ', ' or none at all"
            )
        if not 0 <= examples <= 3:
            raise UserError(f"letters got examples {examples}, but it has 0 to 3 of them")
        if size < 1:
            raise UserError(f"letters got size {size}, but at least 1 problem is needed")
        self.min_length, self.max_length, self.size = min_length, max_length, size
        self._alphabet, self._separator = alphabet, separator
        self._examples = self._draw_examples(examples)

    def __len__(self) -> int:
        """Problems of a split where no limit is given."""
        return self.size

    def examples(self) -> list[tuple[str, str]]:
        """Worked examples: lists that are no problem of any split."""
        return self._examples

    def read(self, problem: Problem, text: str) -> str | None:
        """The letters of a reply's first line that has any; None where it holds words or other marks."""
        line = next((line for line in text.splitlines() if line.strip()), "")
        rest = line.strip().rstrip(".").replace(",", " ")
        parts = rest.split() if self._separator.strip(", ") == "" and self._separator else list(rest)
        if not parts or any(len(part) != 1 or part not in self._alphabet for part in parts):
            return None
        return self._separator.join(parts)

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the list is the sorted one."""
        return answer == problem.answer

    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        check_split(split, self.name)
        generator = random.Random(stream_seed(self.name, split, seed))
        seen = {digest(example) for example, _ in self._examples}
        for _ in range(self.size if limit is None else limit):
            prompt, answer = self._draw(generator, split, seen)
            yield Problem(f"letters:{''.join(c for c in prompt if c.isalpha())}", prompt, answer, answer)

    def _draw(self, generator: random.Random, split: str, seen: set[int]) -> tuple[str, str]:
        for _ in range(_PATIENCE):
            prompt, answer = self._draw_list(generator)
            key = digest(prompt)
            if split_of(prompt) == split and prompt != answer and key not in seen:
                seen.add(key)
                return prompt, answer
        raise UserError(
            f"letters has no further {split} problems with {self.min_length} to {self.max_length} letters "
            f"({len(seen) - len(self._examples)} were given): ask for fewer, or raise max_length"
        )

    def _draw_list(self, generator: random.Random) -> tuple[str, str]:
        letters = generator.sample(self._alphabet, generator.randint(self.min_length, self.max_length))
        ordered = sorted(letters, key=self._alphabet.index)
        return self._separator.join(letters), self._separator.join(ordered)

    def _draw_examples(self, count: int) -> list[tuple[str, str]]:
        """The same for every seed; their lists are kept out of both splits."""
        generator = random.Random(stream_seed(self.name, "examples", 0))
        return [self._draw_list(generator) for _ in range(count)]
