"""Any reasoning-gym data set as a task: generated, needs the package and no network."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from itertools import count
from typing import Any, ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import last_boxed, last_tagged, normalize_answer, read_answer
from llmctl.tasks.base import BaseTask
from llmctl.tasks.gym_exact import has_form
from llmctl.tasks.gym_scoring import (
    CHEAP_SCORERS,
    SUCCESS,
    make_config,
    make_dataset,
    own_scorer,
    source_of,
)
from llmctl.tasks.numbers import MAX_CHARS
from llmctl.tasks.sandbox import sandbox
from llmctl.tasks.splits import check_split, digest, split_of, stream_seed
from llmctl.tasks.types import Problem, TaskInfo

GYM_PROMPT_V1 = "Solve the problem. Give only the final answer between <answer> and </answer>."
_CHUNK = 500  # items of one data set object; some prepare all of theirs, so the stream goes on with the next
_PATIENCE = 2_000  # items in a row without a new problem: the problems of this configuration are used up
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,30})(?:\.\d{1,30})?", re.ASCII)
_ANSWER_LEAD = re.compile(r"(?:answer|result)\s{0,3}(?:is\b\s{0,3}:?|[:=])", re.IGNORECASE)


class Gym(BaseTask):
    """A reasoning-gym data set (Stojanovski et al. 2025).

    Problems are generated as they are asked for, none twice in a split; a hash of the question decides
    between train and test. An answer is right where the data set's score is at least 0.99.

    Args:
        dataset: The data set's name, such as "chain_sum" (or "composite" with `datasets`, a list of
            mappings with name, weight and config).
        size: Problems of a split where no limit is given; a limit may go beyond it.
        **options: The data set's own configuration.

    Raises:
        UserError: reasoning-gym is missing, or has no such data set or option.
    """

    info: ClassVar[TaskInfo] = TaskInfo(
        "gym:<dataset>", "any reasoning-gym data set; generated", "the package reasoning-gym"
    )
    system = GYM_PROMPT_V1
    form = "give the final answer between <answer> and </answer>."

    def __init__(self, dataset: str, size: int = 500, **options: Any) -> None:
        if size < 1:
            raise UserError(f"gym:{dataset} got size {size}, but at least 1 problem is needed")
        self.name, self.dataset, self.size, self._options = f"gym:{dataset}", dataset, size, options
        _check_options(dataset, options)
        self._scores_by_text = _scores_by_text(dataset)
        try:
            make_config(dataset, {**options, "seed": 0, "size": 1})
            self._setup = (dataset, json.dumps({**options, "seed": 0, "size": 1}, sort_keys=True))
        except (AssertionError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self.name} got options that it cannot use ({error}): see its configuration"
            ) from error

    def __len__(self) -> int:
        """Problems of a split where no limit is given."""
        return self.size

    def warm_up(self) -> float:
        """Start the sandbox with the data set's scorer, where the scorer needs it."""
        if self._scores_by_text or self.dataset in CHEAP_SCORERS:
            return 0.0
        return sandbox().warm_up("gym", self._setup)

    def read(self, problem: Problem, text: str) -> str | None:
        """The answer of a reply: tagged, boxed, after "answer is", or the reply itself.

        Where the reference answer is a number, the number that `read_answer` finds.
        """
        if _NUMBER.fullmatch(problem.answer):
            return read_answer(text, "number")
        text = text[-MAX_CHARS:]
        answer = last_tagged(text) or last_boxed(text) or _ANSWER_LEAD.split(text)[-1]
        return answer.strip() or None

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the data set's score of the answer is at least 0.99."""
        if _NUMBER.fullmatch(problem.answer):
            if answer == normalize_answer(problem.answer, "number"):
                return True
            answer = _decimal_form(answer)
        entry = {"question": problem.prompt, "answer": problem.answer, "metadata": dict(problem.meta)}
        source = source_of(entry, self.dataset)
        if answer == problem.answer or self._scores_by_text:
            return answer == problem.answer
        if not has_form(answer, source):
            return False
        scorer = own_scorer(source)
        if scorer is not None and source in CHEAP_SCORERS:
            return scorer(answer, entry) >= SUCCESS
        score = sandbox().judge("gym", self._setup, (answer, entry))
        return score is not None and score >= SUCCESS

    def _items(self, split: str, seed: int) -> Iterator[dict[str, Any]]:
        for chunk in count():
            given = {"seed": stream_seed(self.name, split, seed, chunk), "size": _CHUNK}
            dataset = make_dataset(self.dataset, {**self._options, **given})
            yield from (dataset[index] for index in range(_CHUNK))

    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        check_split(split, self.name)
        seen: set[int] = set()
        wanted = self.size if limit is None else limit
        in_vain = 0
        for entry in self._items(split, seed):
            key = digest(entry["question"])
            if split_of(entry["question"]) == split and key not in seen:
                seen.add(key)
                in_vain = 0
                yield self._problem(entry, key)
                if len(seen) == wanted:
                    return
                continue
            in_vain += 1
            if in_vain > _PATIENCE:
                raise UserError(
                    f"{self.name} has no further {split} problems with these options "
                    f"({len(seen)} were given): ask for fewer, or widen its options"
                )

    def _problem(self, entry: dict[str, Any], key: int) -> Problem:
        answer = str(entry["answer"])
        solution = f"<answer>{answer}</answer>"
        return Problem(f"{self.name}:{key:016x}", entry["question"], answer, solution, entry["metadata"])


def dataset_names() -> list[str]:
    """Names of all reasoning-gym data sets.

    Raises:
        UserError: reasoning-gym is not installed.
    """
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UserError(
            "gym tasks need the package reasoning-gym, which is not installed: pip install reasoning-gym"
        ) from error
    return sorted(DATASETS)


def _check_options(dataset: str, options: dict[str, Any]) -> None:
    names = dataset_names()
    if dataset not in names:
        near = difflib.get_close_matches(dataset, names, n=1, cutoff=0.3) or names[:1]
        raise UserError(
            f"no reasoning-gym data set {dataset!r}; the nearest is {near[0]!r}: try gym:{near[0]} "
            f"(llmctl tasks list names all tasks)"
        )
    from reasoning_gym.factory import DATASETS

    known = sorted({field.name for field in fields(DATASETS[dataset][1])} - {"seed", "size"})
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise UserError(
                f"gym:{dataset} has no option {option!r}{hint}: it takes {', '.join(known) or 'none'}"
            )


def _scores_by_text(dataset: str) -> bool:
    """Whether only the reference answer itself earns the whole score (the base class's scorer)."""
    from reasoning_gym.dataset import ProceduralDataset
    from reasoning_gym.factory import DATASETS

    return DATASETS[dataset][0].score_answer is ProceduralDataset.score_answer


def _decimal_form(number: str) -> str:
    """A number as a scorer expects it: 1/4 as "0.25", and 1/3 as it is."""
    value = Fraction(number)
    scaled, places = value, 0
    while scaled.denominator > 1 and places < 30:
        scaled, places = scaled * 10, places + 1
    if scaled.denominator > 1:
        return number
    digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[: len(digits) - places]}" + (
        f".{digits[len(digits) - places :]}" if places else ""
    )
