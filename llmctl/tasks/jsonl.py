"""A JSONL file of the user's own as a task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import KINDS, normalize_answer, read_answer
from llmctl.tasks.base import RowTask
from llmctl.tasks.latex import same_latex
from llmctl.tasks.rows import FileSource, Row
from llmctl.tasks.sandbox import sandbox
from llmctl.tasks.splits import digest
from llmctl.tasks.types import Problem, TaskInfo

_FORMS = {
    "number": "end with the final answer, a number, within \\boxed{}.",
    "numbers": "end with a line of the numbers only.",
    "text": "end with a line of the answer only.",
    "latex": "end with the final answer within \\boxed{}.",
}
JSONL_PROMPTS_V1 = {
    "number": "Reason step by step, and put your final answer, a number, within \\boxed{}.",
    "numbers": "Solve the problem. Reply with the numbers only.",
    "text": "Solve the problem. Give the answer alone on the last line.",
    "latex": "Reason step by step, and put your final answer within \\boxed{}.",
}


class Jsonl(RowTask):
    """Problems from a JSONL file, one object a line, with field names of one's own.

    Args:
        path: The file: every split name reads it. Or a folder with train*.jsonl and test*.jsonl.
        prompt: The field of the problem's text.
        answer: The field of the reference answer.
        solution: The field of a whole reference reply; rows without it have none.
        id: The field of a unique id; rows without it are named by file and line.
        kind: How answers are read and compared: "number", "numbers", "text" or "latex" (`read_answer`).
        system: The system prompt; None takes the one for the kind, "" leaves it out.

    Raises:
        UserError: No path, nothing there, or no such kind.
    """

    info: ClassVar[TaskInfo] = TaskInfo("jsonl", "a JSONL file of your own", "path= the file or folder")
    name = info.name

    def __init__(
        self,
        path: str | Path | None = None,
        prompt: str = "prompt",
        answer: str = "answer",
        solution: str = "solution",
        id: str = "id",  # noqa: A002  # the option is named for the field that it names
        kind: str = "number",
        system: str | None = None,
    ) -> None:
        if path is None:
            raise UserError("task jsonl needs a file: give path= a JSONL file, or a folder with train*.jsonl")
        if kind not in KINDS:
            raise UserError(f"jsonl got kind {kind!r}, but it must be one of {', '.join(KINDS)}")
        self.source = FileSource(path)
        self.kind, self.form = kind, _FORMS[kind]
        self.system = JSONL_PROMPTS_V1[kind] if system is None else system
        self._prompt, self._answer, self._solution, self._id = prompt, answer, solution, id

    def problem(self, row: Row) -> Problem:
        """A problem from the row's fields."""
        answer = row.text(self._answer)
        if normalize_answer(answer, self.kind) is None:
            raise UserError(
                f"{row.place}: field {self._answer!r} is {answer!r:.40}, which is no answer of kind "
                f"{self.kind!r}: mend the row, or choose another kind"
            )
        solution = row.text(self._solution) if row.fields.get(self._solution) is not None else None
        key = row.text(self._id) if row.fields.get(self._id) is not None else row.key
        return Problem(key, row.text(self._prompt), answer.strip(), solution)

    def _stream(self, split: str, limit: int | None, seed: int) -> Iterator[Problem]:
        seen: set[int] = set()
        for row in self.source.rows(split, seed):
            problem = self.problem(row)
            key = digest(problem.id)
            if key in seen:
                raise UserError(
                    f"{row.place}: id {problem.id!r:.40} came before: ids must be unique, change one"
                )
            seen.add(key)
            yield problem

    def warm_up(self) -> float:
        """Start the sandbox with math-verify, where this task may need it."""
        return sandbox().warm_up("latex") if self.kind == "latex" else 0.0

    def read(self, problem: Problem, text: str) -> str | None:
        """The answer of a reply, by this task's kind."""
        return read_answer(text, self.kind)

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the answers are equal, for LaTeX by math-verify too."""
        reference = normalize_answer(problem.answer, self.kind)
        if self.kind == "latex" and reference is not None:
            return same_latex(answer, reference)
        return answer == reference
