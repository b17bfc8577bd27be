"""GSM8K: grade-school word problems with a whole number as the answer (Cobbe et al. 2021)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import normalize_answer, read_answer
from llmctl.tasks.base import RowTask
from llmctl.tasks.rows import FileSource, HubSource, Row, RowSource
from llmctl.tasks.types import FILE_OR_HUB, Problem, TaskInfo

GSM8K_PROMPT_V1 = (
    "You are given a math word problem. Reason step by step, and put your final answer, a number, "
    "within \\boxed{}."
)
NUMBER_FORM = "end with the final answer, a number, within \\boxed{}."
_CALCULATION = re.compile(r"<<[^<>\n]*>>")


class NumberTask(RowTask):
    """A task from rows whose answers are numbers."""

    form = NUMBER_FORM

    def read(self, problem: Problem, text: str) -> str | None:
        """The number of a reply: `read_answer` of kind "number"."""
        return read_answer(text, "number")

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the numbers are equal."""
        return answer == normalize_answer(problem.answer, "number")


class Gsm8k(NumberTask):
    """GSM8K from a local file or folder, or from the Hub (`openai/gsm8k`).

    Args:
        path: A JSONL file with `question` and `answer` ("... #### 72"): every split name reads that
            file. Or a folder with train*.jsonl and test*.jsonl. None takes the Hub.
    """

    info: ClassVar[TaskInfo] = TaskInfo("gsm8k", "grade-school word problems", FILE_OR_HUB)
    name = info.name
    system = GSM8K_PROMPT_V1

    def __init__(self, path: str | Path | None = None) -> None:
        hub = HubSource("openai/gsm8k", ("main",), self.info.splits, self.name)
        self.source: RowSource = hub if path is None else FileSource(path)

    def problem(self, row: Row) -> Problem:
        r"""A problem whose solution has no calculator marks and ends with the boxed answer."""
        reasoning, mark, answer = row.text("answer").rpartition("####")
        answer = answer.strip()
        if not mark or normalize_answer(answer, "number") is None:
            raise UserError(
                f"{row.place}: field 'answer' must end with '#### NUMBER', but it ends with {answer!r:.40}"
            )
        steps = _CALCULATION.sub("", reasoning).rstrip()
        solution = f"{steps}\nThe answer is $\\boxed{{{answer}}}$."
        return Problem(row.key, row.text("question").strip(), answer, solution.lstrip())
