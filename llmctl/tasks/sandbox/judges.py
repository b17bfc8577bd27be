"""What the sandbox can judge; runs only there.

A judge is made once in the sandbox process (`JUDGES[name](*setup)`: imports, warm-up) and then called in a
forked child, under a deadline, with the text to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any


def latex_judge() -> Callable[[str, str], bool]:
    """Equality of two LaTeX answers by math-verify (Kydlíček, 2025), without its parser of plain expressions.

    That parser is sympy's, which evaluates text as Python; the LaTeX parser builds its tree from a grammar.
    """
    import sympy.integrals.manualintegrate
    import sympy.physics.units  # noqa: F401  # both on first use by simplify, which is too late in a child
    from math_verify import LatexExtractionConfig, parse, verify

    def formula(text: str) -> list[Any]:
        config = [LatexExtractionConfig()]
        return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)

    def equal(reply: str, reference: str) -> bool:
        return bool(verify(formula(reference), formula(reply), timeout_seconds=None))

    def judge(reply: str, reference: str) -> bool:
        _keep_sympy_from_evaluating_text()  # in the child alone: libraries may need it while they load
        return equal(reply, reference)

    # The first parse builds the grammar's tables; done here, they are there in every child.
    for sample in ("x(x+1)", "x^2+\\frac{1}{2}", "(1,2)", "[0,\\infty)", "\\sqrt{2}\\pi", "\\{1,2\\}", "x<5"):
        equal(sample, "x^2+x")
    return judge


def _keep_sympy_from_evaluating_text() -> None:
    """Let sympy read digits from a string and refuse every other string.

    The LaTeX parser makes numbers by `sympy.Number(text)`, which would run the text through Python's eval;
    sympy asks a registered converter first.
    """
    from sympy import Float, Integer, SympifyError
    from sympy.core.sympify import converter

    def number(text: str) -> Any:
        if re.fullmatch(r"-?\d{1,300}", text, re.ASCII):
            return Integer(int(text))
        if re.fullmatch(r"-?\d{0,300}\.\d{0,300}", text, re.ASCII) and text.strip("-."):
            return Float(text)
        raise SympifyError(text)

    converter[str] = number


def gym_judge(name: str, options: str) -> Callable[[str, Mapping[str, Any]], float]:
    """A reasoning-gym data set's own score of an answer, or our own where its scorer evaluates text."""
    from llmctl.tasks.gym_scoring import make_scorer

    return make_scorer(name, options)


JUDGES: dict[str, Callable[..., Callable[..., Any]]] = {"latex": latex_judge, "gym": gym_judge}
