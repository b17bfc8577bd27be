"""Rows of a training: read from a list or a JSONL file, and checked.

A row is `{"messages": [...], "weight": 1.0}`; its last message is the response to learn. If loss is on every
token, a row can be `{"text": "..."}` or `{"input_ids": [...]}` as well.

In a row for a vision-language model, the content of a message can be a list of parts,
`{"type": "text", "text": "..."}` and `{"type": "image", "path": "...", "max_side": 672}`. A row can name the
pass over the data that it belongs to, `"pass": 2`: all rows of a pass come before those of the next one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError


def read_rows(source: Sequence[Mapping[str, Any]] | str | Path) -> list[Mapping[str, Any]]:
    """Rows from a list or a JSONL file, checked one by one.

    Raises:
        UserError: No such file, no rows, or a row (named by its number, from 1) that is malformed: no
            messages (nor text, nor tokens), a last message that is not the assistant's, or a weight that is
            negative or not finite.
    """
    rows = list(_read_lines(Path(source))) if isinstance(source, (str, Path)) else list(source)
    if not rows:
        raise UserError("there are no rows to train on, but at least one is needed: check what made them")
    for number, row in enumerate(rows, 1):
        _check_row(row, f"row {number}")
    return rows


def fingerprint_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A hash of the content and the order of the rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=dict).encode() + b"\n")
    return digest.hexdigest()[:16]


def _read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise UserError(f"the file of rows {path} does not exist: check the path")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path} line {number} is not JSON ({error.msg}): correct or remove it"
                    ) from error


def _check_row(row: Any, where: str) -> None:
    if not (isinstance(row, Mapping) and "messages" not in row and _is_text(row)):
        _check_messages(row, where)
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise UserError(f"{where} has weight {weight!r}, but a finite number of at least 0 is needed")


def _is_text(row: Mapping[str, Any]) -> bool:
    """Whether a row is text or token ids."""
    ids = row.get("input_ids")
    has_ids = isinstance(ids, Sequence) and bool(ids) and all(type(token) is int for token in ids)
    return has_ids or (isinstance(row.get("text"), str) and bool(row["text"]))


def _check_messages(row: Any, where: str) -> None:
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UserError(
            f'{where} is {row!r:.80}, but it needs messages: {{"messages": [...], "weight": 1.0}}'
        )
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        is_parts = isinstance(content, list) and all(_is_part(part) for part in content)
        if not isinstance(content, str) and not is_parts:
            raise UserError(
                f"{where} holds {message!r:.80}, but a message needs a role and a content of text"
            )
    if messages[-1].get("role") != "assistant":
        raise UserError(
            f"{where} ends with a message of role {messages[-1].get('role')!r}, but the last message is the "
            "response to learn: end it with an assistant message"
        )


def _is_part(part: Any) -> bool:
    kinds = {"text": "text", "image": "path"}
    return isinstance(part, Mapping) and isinstance(part.get(kinds.get(str(part.get("type")), "")), str)
