"""MATH: competition problems with LaTeX answers (Hendrycks et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from llmctl.errors import UserError
from llmctl.tasks.answers import last_boxed, normalize_answer, read_answer
from llmctl.tasks.base import RowTask
from llmctl.tasks.latex import same_latex
from llmctl.tasks.rows import FileSource, HubSource, Row, RowSource
from llmctl.tasks.sandbox import sandbox
from llmctl.tasks.types import FILE_OR_HUB, Problem, TaskInfo

MATH_PROMPT_V1 = (
    "You are given a math problem. Reason step by step, and put your final answer, as simple as it can be "
    "written, within \\boxed{}."
)
FORMULA_FORM = "end with the final answer within \\boxed{}."
SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


class Math(RowTask):
    r"""MATH from a local file or folder, or from the Hub (`EleutherAI/hendrycks_math`).

    Args:
        path: A JSONL file with `problem` and `solution` (whose last \boxed{} holds the answer), perhaps
            `level` and `type`: every split name reads that file. Or a folder with train*.jsonl and
            test*.jsonl. None takes the Hub, all seven subjects one after another.
    """

    info: ClassVar[TaskInfo] = TaskInfo("math", "competition problems with LaTeX answers", FILE_OR_HUB)
    name = info.name
    system = MATH_PROMPT_V1
    form = FORMULA_FORM

    def __init__(self, path: str | Path | None = None) -> None:
        hub = HubSource("EleutherAI/hendrycks_math", SUBJECTS, self.info.splits, self.name)
        self.source: RowSource = hub if path is None else FileSource(path)

    def problem(self, row: Row) -> Problem:
        r"""A problem whose answer is the content of the last \boxed{} of the solution."""
        solution = row.text("solution").strip()
        answer = last_boxed(solution)
        if answer is None or normalize_answer(answer, "latex") is None:
            raise UserError(
                f"{row.place}: field 'solution' has no \\boxed{{...}} with an answer in it: add one"
            )
        meta = {name: row.fields[name] for name in ("level", "type") if name in row.fields}
        return Problem(row.key, row.text("problem").strip(), answer.strip(), solution, meta)

    def warm_up(self) -> float:
        """Start the sandbox with math-verify, where this task may need it."""
        return sandbox().warm_up("latex")

    def read(self, problem: Problem, text: str) -> str | None:
        """The formula of a reply: `read_answer` of kind "latex"."""
        return read_answer(text, "latex")

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether the formulas are equal, by text or by math-verify."""
        reference = normalize_answer(problem.answer, "latex")
        return reference is not None and same_latex(answer, reference)
