r"""Answers read from text, as pure functions: no model text is evaluated, no length makes them slow.

Four kinds of answer:

- `number`: one number. "$72", "72.0" and "\boxed{72}" are all "72".
- `numbers`: a list of numbers in order. "12, 34, 56" and "[12 34 56]" are both "12 34 56".
- `text`: words, compared without case, outer punctuation and extra spaces.
- `latex`: a formula, normalized by `llmctl.tasks.latex`; numbers among them are spelled as numbers.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from llmctl.errors import UserError
from llmctl.tasks.latex import normalize_latex
from llmctl.tasks.numbers import MAX_CHARS, find_numbers, first_number, format_number, only_number, plain

Kind = Literal["number", "numbers", "text", "latex"]
KINDS: tuple[str, ...] = get_args(Kind)
MAX_ANSWER_CHARS = 2_000  # a longer answer is none
_MAX_BOXES = 20  # boxes tried from the end of a text, should the last ones be cut off

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,3}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"[^\s${}]{1,100}")
_TAG = re.compile(r"<answer>([^<]*+(?:<(?!/?answer>)[^<]*+)*+)</answer>", re.IGNORECASE)
_HASHES = re.compile(r"####[^\S\n]{0,3}([^\n]++)")
_ANSWER_IS = re.compile(
    r"\b(?:answer|result)\b[*_]{0,3}[^\S\n]{0,3}(?:is\b[^\S\n]{0,3}:?|[:=])[*_]{0,3}", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"\.(?=\s+[A-Z])")
_INLINE_MATH = re.compile(r"\$([^$\n]{1,500})\$")
_LIST_LEAD = re.compile(r"[:=]|->|→|\\to(?![A-Za-z])")
_SPACE = re.compile(r"\s++")


def read_answer(text: str, kind: Kind | str) -> str | None:
    r"""The final answer of a reply, normalized; two replies with the same answer give the same string.

    Looked for in this order: the last \boxed{...}, the last <answer>...</answer>, the last "#### ...",
    the last "answer is ...", and for want of these the last number (number), the last line with
    numbers (numbers), the last non-empty line (text), or the last inline formula (latex).

    Args:
        text: A reply of any length and content; only its last `MAX_CHARS` characters are read.
        kind: "number", "numbers", "text" or "latex".

    Returns:
        The normalized answer, or None where none can be read.

    Raises:
        UserError: No such kind.
    """
    if kind not in KINDS:
        raise UserError(f"answer kind is {kind!r}, but it must be one of {', '.join(KINDS)}")
    text = text[-MAX_CHARS:]
    boxed = last_boxed(text)
    if boxed is not None and boxed.strip():
        return normalize_answer(boxed, kind)
    marked = _marked(text)
    if kind == "number":
        return _read_number(text, marked)
    if kind == "numbers":
        return _numbers(marked) if marked else _read_numbers(text)
    if kind == "text":
        return _text(marked if marked else _last_line(text))
    return _read_latex(text, marked)


def normalize_answer(answer: str, kind: Kind | str) -> str | None:
    """The normal form of a text that is nothing but an answer, such as a reference answer.

    Args:
        answer: The answer alone, without the reasoning before it.
        kind: As in `read_answer`.

    Returns:
        The form that `read_answer` gives for it, or None where it isn't an answer of that kind.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    if kind == "number":
        value = only_number(plain(answer))
        return None if value is None else format_number(value)
    if kind == "numbers":
        return _numbers(answer)
    if kind == "text":
        return _text(answer)
    return normalize_latex(answer)


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} (or \fbox) of a text, braces within it included.

    A box that was cut off before its brace closed is passed over; "\boxed 5" gives "5".
    """
    starts = [match.end() for match in _BOX.finditer(text)][-_MAX_BOXES:]
    for start in reversed(starts):
        content = _braced(text, start)
        if content is not None:
            return content
    return None


def last_tagged(text: str) -> str | None:
    """The content of the last <answer>...</answer> of a text, or None."""
    tags = _TAG.findall(text[-MAX_CHARS:])
    return tags[-1].strip() if tags else None


def _braced(text: str, start: int) -> str | None:
    if text[start : start + 1] != "{":
        bare = _BARE_BOX.match(text, start)
        return bare.group() if bare else None
    depth = 0
    for match in _BRACE.finditer(text, start, start + MAX_ANSWER_CHARS):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[start + 1 : match.start()]
    return None


def _marked(text: str) -> str | None:
    """What follows the last mark of a final answer, or None."""
    tagged = last_tagged(text)
    if tagged:
        return tagged
    hashes = _HASHES.findall(text)
    if hashes and hashes[-1].strip():
        return str(hashes[-1]).strip()
    leads = [match.end() for match in _ANSWER_IS.finditer(text)]
    rest = text[leads[-1] :].strip() if leads else ""
    return _SENTENCE_END.split(rest.split("\n", 1)[0])[0].strip() or None


def _read_number(text: str, marked: str | None) -> str | None:
    if marked is not None:
        text_marked = plain(marked)
        value = only_number(text_marked)
        if value is None:  # "is $5 + $3 = $8, as asked": what the last equals sign leads to
            value = first_number(text_marked.rsplit("=", 1)[-1])
        if value is not None:
            return format_number(value)
    found = find_numbers(plain(text))
    return format_number(found[-1]) if found else None


def _numbers(text: str) -> str | None:
    found = find_numbers(plain(text.replace(",", " ")))
    return " ".join(map(format_number, found)) if found else None


def _read_numbers(text: str) -> str | None:
    """The last line with two numbers or more, after its last colon, equals sign or arrow."""
    single = None
    for line in reversed(text.splitlines()):
        tail = _LIST_LEAD.split(line)[-1]
        for part in (tail, line):
            numbers = _numbers(part[:MAX_ANSWER_CHARS]) if any(map(str.isdigit, part)) else None
            if numbers and " " in numbers:
                return numbers
            single = single or numbers
    return single


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _text(text: str) -> str | None:
    words = _SPACE.sub(" ", text).strip(" \t\n*_`\"'.$").casefold()
    return words if 0 < len(words) <= MAX_ANSWER_CHARS else None


def _read_latex(text: str, marked: str | None) -> str | None:
    if marked is not None:
        inline = _INLINE_MATH.search(marked)
        return normalize_latex(inline.group(1) if inline else marked[:MAX_ANSWER_CHARS])
    formulas = _INLINE_MATH.findall(text)
    return normalize_latex(formulas[-1]) if formulas else None
