"""States and targets as people type them: a text, token ids, or a JSON conversation."""

from __future__ import annotations

import json
from typing import Any

from llmctl.errors import UserError


def read_state(text: str, ids: str, position: str) -> Any:
    """The state as `Problem` takes it: text, ids, or the messages of a conversation.

    Raises:
        UserError: None is given, or both, or a conversation that is no JSON.
    """
    if position != "template":
        return one_of(text, ids, "--state")
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(
            '--position template needs a JSON conversation as --state, e.g. \'[{"role": "user", '
            f'"content": "{{control}} Hi"}}]\' ({error})'
        ) from error


def one_of(text: str, ids: str, name: str) -> Any:
    """A text, or token ids in place of it.

    Raises:
        UserError: Neither is given, or both.
    """
    if bool(text) == bool(ids):
        received = "both given" if text else "empty"
        raise UserError(f"{name} and {name}-ids are {received}, but one is needed: give a text or token ids")
    return text if text else read_ids(ids, f"{name}-ids")


def read_ids(text: str, name: str) -> tuple[int, ...]:
    """Token ids separated by spaces or commas.

    Raises:
        UserError: One is no number.
    """
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise UserError(f'{name} is {text!r}, but token ids are needed, e.g. "1504 314"') from error
