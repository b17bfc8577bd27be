"""Exact comparisons in place of those reasoning-gym scorers that accept wrong answers.

Some scorers of reasoning-gym take any text for "False", give a probability near 0 the whole score for "0",
count a duration that is seconds off as right, or ignore whatever else an answer holds. The data sets where
that was found have a comparison of their own here, or a form that an answer must have as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Entry = Mapping[str, Any]  # question, answer and metadata of one problem

_TOLERANCE = Fraction(1, 1000)  # relative: a probability may be given with four digits
_NUMBER = re.compile(r"\d{1,30}(?:\.\d{1,30})?(?:/[1-9]\d{0,30})?", re.ASCII)
_DURATION = re.compile(
    r"(?:(\d{1,9})(?: days?)?)?,?\s{0,3}(?:(\d{1,4}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII
)


def _same_text(answer: str, entry: Entry) -> float:
    """1 for the reference answer in any case of letters."""
    return float(answer.strip().casefold() == str(entry["answer"]).strip().casefold())


def _same_probability(answer: str, entry: Entry) -> float:
    """1 for a number within a thousandth of the reference, relative to it."""
    given = _number(answer)
    if given is None:
        return 0.0
    ratio = entry["metadata"]["rational"]
    wanted = Fraction(int(ratio["numerator"]), int(ratio["denominator"]))
    return float(abs(given - wanted) <= _TOLERANCE * wanted)


def _number(text: str) -> Fraction | None:
    text = text.strip().replace(",", "")
    if not _NUMBER.fullmatch(text):
        return None
    above, _, below = text.partition("/")
    return Fraction(above) / Fraction(below or 1)


def _same_duration(answer: str, entry: Entry) -> float:
    """1 for the same days, hours, minutes, seconds and milliseconds."""
    given = _duration(answer)
    return float(given is not None and given == _duration(str(entry["answer"])))


def _duration(text: str) -> Fraction | None:
    """Seconds of "3 days, 04:05:06", of a part of it, or of a number of days; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[:4])
    return Fraction(f"0.{found[5] or 0}") + 86_400 * days + 3_600 * hours + 60 * minutes + seconds


EXACT_SCORERS: dict[str, Callable[[str, Entry], float]] = {
    "coin_flip": _same_probability,
    "game_of_life_halting": _same_text,
    "letter_jumble": _same_text,
    "spell_backward": _same_text,
    "time_intervals": _same_duration,
}
"""Comparisons that replace the data set's own scorer. Each is bounded by itself and needs no sandbox."""

ANSWER_FORMS: dict[str, re.Pattern[str]] = {
    "fraction_simplification": re.compile(r"[\d\s/\\${}()dfrac-]+"),
    "kakurasu": re.compile(r"[01\s]+"),
    "quantum_lock": re.compile(r"[A-C](?:[\s,→>-]*[A-C])*", re.IGNORECASE),
    "sokoban": re.compile(r"[UDLR\s]+", re.IGNORECASE),
    "survo": re.compile(r"[\d\s]+"),
}
"""What an answer consists of, for data sets whose scorer skips everything else; other answers are wrong."""


def has_form(answer: str, source: str) -> bool:
    """Whether an answer has the form that its data set asks for, where the data set has one."""
    form = ANSWER_FORMS.get(source)
    return form is None or form.fullmatch(answer.strip()) is not None
