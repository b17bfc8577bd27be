r"""LaTeX answers: a normal form by text alone, and equality beyond it by math-verify in the sandbox.

The normal form settles most answers (spacing, \dfrac, units, "x =", numbers in any spelling). What is
left is a question of algebra, such as x(x+1) against x^2+x: math-verify answers it in a process that
can be killed (`llmctl.tasks.sandbox`), and only for formulas within the limits below.
"""

from __future__ import annotations

import re

from llmctl.tasks.numbers import bare_number, format_number
from llmctl.tasks.sandbox import sandbox

MAX_FORMULA_CHARS = 400
MAX_NESTING = 12
MAX_DIGIT_RUN = 30

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s{0,3}\{([^{}]*+)\}")
_TRAILING_UNIT = re.compile(
    r"(?<=[\d}a-z%])(?:\s|\\[,;! ])*\\(?:text|mathrm|mbox)\s{0,3}\{[^{}]*+\}(?:\^\{?[23]\}?)?$"
)
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[!,;: ]|\\[$%]|[$%~]|\^\s?\{?\s?\\circ\s?\}?|°"
)
_ARGUMENT = r"(?:\{([^{}]*+)\}|(\\(?!sqrt)[A-Za-z]+|[A-Za-z\d]))"
_SHORT_FRACTION = re.compile(rf"\\frac\s?{_ARGUMENT}\s?{_ARGUMENT}")
_SLASH_FRACTION = re.compile(r"^(-?)(\w+)/(\w+)$")
_SHORT_ROOT = re.compile(r"\\sqrt\s?([A-Za-z\d])")
_NAMED_VALUE = re.compile(r"^[A-Za-z](?:_\{?\w\}?)?(?:\(\w\))?\s?(?:=|\\in(?![a-z]))\s?")
_CHOICE = re.compile(r"^\(([A-Z])\)$")
_SINGLE_SCRIPT = re.compile(r"([_^])\{(\w)\}")
_COMMAND_SPACE = re.compile(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])")
_SPACE = re.compile(r"\s+")
_SPELLINGS = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cfrac": "\\frac",
    "\\leq": "\\le",
    "\\geq": "\\ge",
    "\\neq": "\\ne",
    "{,}": ",",
    "\u2212": "-",
    "\u03c0": "\\pi ",
    "\u221e": "\\infty ",
}
_BASED = re.compile(r"(-?\w+)_(?:\d|\{\d+\})", re.ASCII)  # 3032_5
_HUGE_POWER = re.compile(  # an exponent of 4 digits, or one that is a power or a factorial itself
    r"(?:\^|\*\*)\s?(?:[{(+\s-]*\d{4,}|\{[^{}]*(?:\^|\*\*|!)|[({\s-]*\w+[\s)]*\*\*|\w\s?[\^!]|\{\s*\{)"
)
_HUGE_FACTORIAL = re.compile(r"(?:\d{4,}|[)}\]!])\s*!")
_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN + 1},}}")


def normalize_latex(answer: str) -> str | None:
    r"""The normal form of a LaTeX answer.

    Args:
        answer: The content of a \boxed{}, say; at most 2,000 characters are looked at.

    Returns:
        The form: numbers as `format_number` spells them, other formulas without spacing and units.
        None where nothing is left.
    """
    answer = answer[:2_000].strip().rstrip(".").strip()
    number = bare_number(answer)
    if number is not None:
        return format_number(number)
    for spelling, usual in _SPELLINGS.items():
        answer = answer.replace(spelling, usual)
    answer = _WRAPPER.sub(r"\1", _TRAILING_UNIT.sub("", answer))
    answer = _COMMAND_SPACE.sub("\\1\0", _DROPPED.sub("", answer))
    answer = _SPACE.sub("", answer).replace("\0", " ")
    answer = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_FRACTION.sub(_full_fraction, answer))
    answer = _SLASH_FRACTION.sub(r"\1\\frac{\2}{\3}", _NAMED_VALUE.sub("", answer))
    answer = _SINGLE_SCRIPT.sub(r"\1\2", _CHOICE.sub(r"\1", answer)).rstrip(".")
    number = bare_number(answer)
    return format_number(number) if number is not None else answer or None


def same_latex(reply: str, reference: str) -> bool:
    """Whether two normalized LaTeX answers mean the same.

    Args:
        reply: The answer of a reply, from `normalize_latex`.
        reference: The reference answer, from `normalize_latex`.

    Returns:
        True where the texts agree or math-verify finds them equal. False otherwise, also for formulas
        beyond this module's limits and where math-verify found nothing within its time.

    Raises:
        UserError: math-verify is needed and cannot be imported.
    """
    if reply == reference:
        return True
    if _is_plain(reply) and _is_plain(reference):
        return False  # two numbers, or two words, and not the same
    based = [_BASED.fullmatch(answer) for answer in (reply, reference)]
    if any(based):  # math-verify overlooks the base; one that isn't written is the one asked for
        digits = [
            match.group(1) if match else answer
            for match, answer in zip(based, (reply, reference), strict=True)
        ]
        return not all(based) and digits[0] == digits[1]
    if not (is_bounded(reply) and is_bounded(reference)):
        return False
    return sandbox().judge("latex", (), (reply, reference)) is True


def is_bounded(formula: str) -> bool:
    """Whether a formula is small enough to be worth math-verify's time; the sandbox is the hard limit."""
    if len(formula) > MAX_FORMULA_CHARS or _DIGIT_RUN.search(formula):
        return False
    if _HUGE_POWER.search(formula) or _HUGE_FACTORIAL.search(formula):
        return False
    depth = deepest = 0
    for char in formula:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    return deepest <= MAX_NESTING


def _is_plain(answer: str) -> bool:
    """Whether an answer is a number or a single word: then text alone decides."""
    return bare_number(answer) is not None or (answer.isalpha() and len(answer) > 3)


def _full_fraction(match: re.Match[str]) -> str:
    top, bottom = (part for part in match.groups() if part is not None)
    return f"\\frac{{{top}}}{{{bottom}}}"
