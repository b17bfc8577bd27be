"""Numbers in text: exact, bounded, never evaluated.

Every number is a `Fraction`, so "0.75", "3/4" and "75e-2" are one number. Limits keep hostile text cheap:
only the end of a text is read, and a number with more than `MAX_DIGITS` digits, or an exponent beyond
`MAX_EXPONENT`, is no number at all.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_CHARS = 20_000  # the end of a text that is read; a final answer stands there
MAX_DIGITS = 60  # digits of a numerator or denominator
MAX_EXPONENT = 60  # decimal exponent, either sign

_MINUS_SIGNS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d", "-"))  # minus, small and fullwidth hyphen
_LONG_SPACE = re.compile(r"\s{4,}")  # shortened, so that no pattern below rescans a long run of blanks
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
# Possessive quantifiers (++) rule out backtracking, so a scan is linear in the text.
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,20}+(?![\d,])|\d++)(?:\.\d++)?|\.\d++"
_TOKEN = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}%.])[-+])?              # "5-3" holds 3, "= -3" holds -3
    (?:\\?[$€£¥₹]\s?(?P<inner>-)?)?
    (?<![A-Za-z0-9_^])(?<!\d\.)(?<!\^\{{)
    (?:(?P<whole>\d++)\s++(?=\d++/\d))?          # the 1 of "1 1/2"
    (?P<num>{_DIGITS})(?:[eE](?P<exp>[-+]?\d++))?
    (?:\s?/\s?(?P<den>{_DIGITS}))?
    (?:\s*(?:×|x|\*|\\times|\\cdot)\s*10\s?(?:\^|\*\*)\s?\{{?(?P<pow>[-+]?\d++)\}}?)?
    (?![\d^²³¹⁰⁴-⁹!])(?!\*\*\d)
    """,
    re.VERBOSE | re.ASCII,
)
_LATEX_FRACTION = re.compile(
    r"(\d?)\s*\\[dtc]?frac\s*(?:\{\s*(-?\d++)\s*\}|(\d))\s*(?:\{\s*(-?\d++)\s*\}|(\d))"
)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*+)\}")
_THOUSANDS_SPACE = re.compile(r",\s*\\!\s*")
_LATEX_NOISE = re.compile(r"\\[!;:, ]|\\(?:left|right|displaystyle)(?![A-Za-z])|~")
_BEFORE = re.compile(r"[\s(\[{$*_\\]*+(?:\\?[$€£¥₹]\s?)?", re.ASCII)
_AFTER = (
    re.compile(  # words and units: "clips", "per full-time day", "/hour", "cm^2", but no further operation
        r"(?:[^\d+/^=<>\\|-]|[-/](?=\s?[A-Za-z]))*+(?:\^\{?[23]\}?|[²³])?[^\d+/^=<>\\|-]*+", re.ASCII
    )
)
_DEGREES = re.compile(r"\^?\s*\{?\s*\\(?:circ|degree)(?![A-Za-z])\s*\}?|°")
_EQUALS = re.compile(r"=|≈|\\approx(?![A-Za-z])")


def plain(text: str) -> str:
    """The end of a text with ASCII digits and minus signs, and with the LaTeX of plain numbers undone."""
    text = _LONG_SPACE.sub("\n", text[-MAX_CHARS:]).translate(_MINUS_SIGNS)
    text = _NON_ASCII.sub(lambda match: _ascii_digit(match.group()), text)
    text = _DEGREES.sub(" ", text.replace("{,}", ",").replace("\\%", "%"))
    text = _THOUSANDS_SPACE.sub(",", text)
    text = _LATEX_NOISE.sub(" ", text)
    text = _LATEX_TEXT.sub(r" \1 ", text)
    return _LATEX_FRACTION.sub(_fraction_as_text, text)


def find_numbers(text: str) -> list[Fraction]:
    """All readable numbers of a text that went through `plain`, in order."""
    values = (_value(match) for match in _TOKEN.finditer(text))
    return [value for value in values if value is not None]


def first_number(text: str) -> Fraction | None:
    """The number that a text begins with, after spaces, brackets and markup."""
    start = _BEFORE.match(text).end()  # type: ignore[union-attr]  # the pattern matches the empty string
    match = _TOKEN.match(text, _back_to_currency(text, start))
    return _value(match) if match else None


def only_number(text: str) -> Fraction | None:
    """The number that a text consists of: "$72", "72 clips", "x = 72", "72 cm^2", but not "x + 2".

    Args:
        text: A short text that went through `plain`.
    """
    text = _EQUALS.split(text)[-1].strip()
    start = _back_to_currency(text, _BEFORE.match(text).end())  # type: ignore[union-attr]
    match = _TOKEN.match(text, start)
    if match is None:
        compact = re.sub(r"^-\s+", "-", text[start:])
        match = _TOKEN.match(compact)
        text = compact
    if match is None or not _AFTER.fullmatch(text, match.end()):
        return None
    return _value(match)


def parse_number(text: str) -> Fraction | None:
    r"""The number that a whole text stands for.

    Args:
        text: "1,000.00", "$72", "72 clips", "-3", "3/4", "1 1/2", "1e3", "50%" (50) or "\frac{3}{4}".

    Returns:
        The number, or None where the text is something else or beyond the limits of this module.
    """
    return only_number(plain(text))


def bare_number(text: str) -> Fraction | None:
    r"""The number that a text spells and nothing else: "\$1{,}000", "50\%", "-\frac{3}{4}", but not "5x".

    Args:
        text: As for `parse_number`, without words, units other than a currency sign, or an equation.

    Returns:
        The number, or None where the text is something else or beyond the limits of this module.
    """
    compact = re.sub(r"^-\s+", "-", plain(text).rstrip(" \n\t$%.").lstrip(" \n\t$"))
    match = _TOKEN.fullmatch(compact)
    return _value(match) if match else None


def format_number(value: Fraction) -> str:
    """One spelling a number, for votes: "72", "-3", "3/4"."""
    return str(value)


def _back_to_currency(text: str, index: int) -> int:
    """Step back over a currency sign, so that a sign before it is seen: `-$72`."""
    return index - 1 if index and text[index - 1] in "$€£¥₹" else index


def _ascii_digit(char: str) -> str:
    """A digit of any script in ASCII; anything else, superscripts included, as it is."""
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)


def _fraction_as_text(match: re.Match[str]) -> str:
    whole, top, top_digit, bottom, bottom_digit = match.groups()
    fraction = f"{top or top_digit}/{bottom or bottom_digit}"
    return f"{whole} {fraction} " if whole else f"{fraction} "


def _value(match: re.Match[str]) -> Fraction | None:
    parts = match.groupdict()
    value = _decimal(parts["num"], parts["exp"])
    if value is not None and parts["den"]:
        bottom = _decimal(parts["den"], None)
        value = value / bottom if bottom else None
    if value is not None and parts["whole"]:
        whole = _decimal(parts["whole"], None)
        value = value + whole if whole is not None else None
    if value is not None and parts["pow"]:
        value = _scaled(value, parts["pow"])
    negative = (parts["sign"] or "").startswith("-") != bool(parts["inner"])
    return -value if value is not None and negative else value


def _decimal(digits: str, exponent: str | None) -> Fraction | None:
    if len(digits) > 2 * MAX_DIGITS:  # before any work on it
        return None
    digits = digits.replace(",", "")
    if len(digits) > MAX_DIGITS:
        return None
    return _scaled(Fraction(digits), exponent) if exponent else Fraction(digits)


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    if len(exponent) > 4 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return value * Fraction(10) ** int(exponent)
