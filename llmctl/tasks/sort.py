"""Sorting two-digit numbers: generated, needs no data, and within reach of a model of 135M parameters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import read_answer
from llmctl.tasks.base import BaseTask
from llmctl.tasks.splits import check_split, digest, split_of, stream_seed
from llmctl.tasks.types import Problem, TaskInfo

SORT_PROMPT_V1 = "Sort the numbers from smallest to largest. Reply with the sorted numbers only."
LOWEST, HIGHEST = 10, 99
_EXAMPLES = ("41 87 23 62", "75 30 58", "94 16 39 81 27")
_PATIENCE = 20_000  # draws in a row without a new problem: the problems of these lengths are used up


class Sort(BaseTask):
    """Sort lists of distinct two-digit numbers in ascending order.

    No list is sorted already (that would reward echoing), none comes twice in a split, and a hash of the
    list decides between train and test, so that no list is in both.

    Args:
        min_length: Numbers in the shortest list, at least 2.
        max_length: Numbers in the longest list, at most 20; lengths are drawn evenly.
        examples: Worked examples in the conversation, 0 to 3.
        size: Problems of a split where no limit is given; a limit may go beyond it.

    Raises:
        UserError: An option is out of its range.
    """

    info: ClassVar[TaskInfo] = TaskInfo("sort", "sort two-digit numbers; generated, for small models")
    name = info.name
    system = SORT_PROMPT_V1
    form = "reply with the sorted numbers only."

    def __init__(self, min_length: int = 3, max_length: int = 5, examples: int = 1, size: int = 1000) -> None:
        if not 2 <= min_length <= max_length <= 20:
            raise UserError(
                f"sort got min_length {min_length} and max_length {max_length}, but 2 <= min_length <= "
                "max_length <= 20 is needed: change one of them"
            )
        if not 0 <= examples <= len(_EXAMPLES):
            raise UserError(f"sort got examples {examples}, but it has 0 to {len(_EXAMPLES)} of them")
        if size < 1:
            raise UserError(f"sort got size {size}, but at least 1 problem is needed")
        self.min_length, self.max_length, self.size = min_length, max_length, size
        self._examples = [(prompt, _sorted(prompt)) for prompt in _EXAMPLES[:examples]]

    def __len__(self) -> int:
        """Problems of a split where no limit is given."""
        return self.size

    def examples(self) -> list[tuple[str, str]]:
        """Worked examples: lists that are no problem of any split."""
        return self._examples

    def read(self, problem: Problem, text: str) -> str | None:
        """The list of a reply: `read_answer` of kind "numbers"."""
        return read_answer(text, "numbers")

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the list is the sorted one."""
        return answer == problem.answer

    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        check_split(split, self.name)
        generator = random.Random(stream_seed(self.name, split, seed))
        seen = {digest(example) for example in _EXAMPLES}
        for _ in range(self.size if limit is None else limit):
            prompt = self._draw(generator, split, seen)
            answer = _sorted(prompt)
            yield Problem(f"sort:{prompt.replace(' ', '-')}", prompt, answer, answer)

    def _draw(self, generator: random.Random, split: str, seen: set[int]) -> str:
        for _ in range(_PATIENCE):
            length = generator.randint(self.min_length, self.max_length)
            prompt = " ".join(map(str, generator.sample(range(LOWEST, HIGHEST + 1), length)))
            key = digest(prompt)
            if split_of(prompt) == split and prompt != _sorted(prompt) and key not in seen:
                seen.add(key)
                return prompt
        raise UserError(
            f"sort has no further {split} problems with {self.min_length} to {self.max_length} numbers "
            f"({len(seen) - len(_EXAMPLES)} were given): ask for fewer, or raise max_length"
        )


def _sorted(prompt: str) -> str:
    return " ".join(sorted(prompt.split()))  # two digits each: the order of text is that of numbers
