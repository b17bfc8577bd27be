"""SVAMP: elementary word problems in varied wordings (Patel et al. 2021), out of distribution for GSM8K."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import normalize_answer
from llmctl.tasks.gsm8k import GSM8K_PROMPT_V1, NumberTask
from llmctl.tasks.rows import FileSource, HubSource, Row, RowSource
from llmctl.tasks.types import FILE_OR_HUB, Problem, TaskInfo


class Svamp(NumberTask):
    """SVAMP from a local file or folder, or from the Hub (`ChilleD/SVAMP`).

    Args:
        path: A JSONL file with `Body`, `Question` and `Answer` (and `Equation`, if it has one): every
            split name reads that file. Or a folder with train*.jsonl and test*.jsonl. None takes the Hub.
    """

    info: ClassVar[TaskInfo] = TaskInfo("svamp", "elementary word problems in varied wordings", FILE_OR_HUB)
    name = info.name
    system = GSM8K_PROMPT_V1

    def __init__(self, path: str | Path | None = None) -> None:
        hub = HubSource("ChilleD/SVAMP", (None,), self.info.splits, self.name)
        self.source: RowSource = hub if path is None else FileSource(path)

    def problem(self, row: Row) -> Problem:
        """A problem of body and question; the solution is the equation, if any, and the answer."""
        answer = normalize_answer(row.text("Answer"), "number")
        if answer is None:
            raise UserError(
                f"{row.place}: field 'Answer' must be a number, but it is {row.text('Answer')!r:.40}"
            )
        body = row.text("Body").strip()
        body = body if body[-1] in ".?!," else f"{body}."
        equation = str(row.fields.get("Equation") or "").strip()
        steps = f"{equation} = {answer}\n" if equation else ""
        solution = f"{steps}The answer is $\\boxed{{{answer}}}$."
        return Problem(row.key, f"{body} {row.text('Question').strip()}", answer, solution)
