"""Prompts from the command line, a text file, a JSONL file or stdin, as conversations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.messages import Message
from llmctl.trust.limits import parse_json


def read_conversations(prompts: Sequence[str], file: Path | None, system: str | None) -> list[list[Message]]:
    """Read all conversations: those of the command line first, then those of the file.

    Args:
        prompts: What the user says, one conversation each.
        file: A text file with one prompt a line; a `.jsonl` file with one conversation a line, which is a
            list of messages, or an object with "messages" or "prompt"; or "-", lines from stdin.
        system: Put before each conversation that has no system message of its own.

    Raises:
        UserError: There is nothing to ask, or a line of the file is broken (with its number).
    """
    conversations: list[list[Message]] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    if file is not None:
        conversations += _read_file(file)
    if not conversations:
        raise UserError("there is no prompt: give one in quotes, or a file of them with --file")
    if system is None:
        return conversations
    first: Message = {"role": "system", "content": system}
    return [asked if asked[0]["role"] == "system" else [first, *asked] for asked in conversations]


def _read_file(file: Path) -> Iterator[list[Message]]:
    is_jsonl = file.suffix == ".jsonl"
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        if is_jsonl:
            yield _conversation(line, f"{file}, line {number}")
        else:
            yield [{"role": "user", "content": line.rstrip("\r\n")}]


def _lines(file: Path) -> list[str]:
    from llmctl.runs.files import disk_errors_as_user_errors

    if str(file) == "-":
        return sys.stdin.readlines()
    try:
        with disk_errors_as_user_errors(f"read {file}"):
            return file.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text: save it as UTF-8") from error


def _conversation(line: str, place: str) -> list[Message]:
    """The messages of one JSONL line."""
    try:
        content: Any = parse_json(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error})") from error
    if isinstance(content, dict) and isinstance(content.get("prompt"), str):
        content = [{"role": "user", "content": content["prompt"]}]
    messages = content.get("messages") if isinstance(content, dict) else content
    if not isinstance(messages, list) or not messages or not all(_is_message(each) for each in messages):
        raise UserError(
            f'{place} is no conversation: a list of {{"role", "content"}}, or an object with "messages" or '
            '"prompt", is needed'
        )
    return messages


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "content" in value
