"""How large and how deep a file of others may be, looked at before it is built in memory."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from llmctl.errors import UserError
from llmctl.trust.names import open_plain

RECIPE_BYTES = 2**20  # a recipe of a megabyte has no reader
JSON_BYTES = 2**28  # metrics and manifests; journals are read line by line
LINE_BYTES = 2**26  # of a journal or of a task's file; a line holds a chunk of work at most
DEPTH = 64  # nesting that a recipe may have; Python's parsers recurse
_BRACKET = re.compile(r"[][{}]")
_BRACKETS = 1_000  # open at once; the scanner's time grows with their square before it gives an event
NODES = 50_000  # values after aliases are expanded: ten lines of aliases can mean a billion


def read_limited(path: Path, most: int = RECIPE_BYTES, *, is_link_allowed: bool = True) -> bytes:
    """The bytes of a plain file that is not larger than allowed.

    Args:
        path: The file.
        most: Bytes.
        is_link_allowed: A recipe may lie anywhere that the user points at; a file of a run folder is no link.

    Raises:
        UserError: It is not a plain file (a pipe would hang, a device never ends), or it is too large.
        OSError: It cannot be read.
    """
    with os.fdopen(open_plain(path, os.O_RDONLY, is_link_allowed=is_link_allowed), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path} is larger than {most:,} bytes: check that it is the right file")
    return data


def check_yaml(text: str, name: str = "the YAML") -> None:
    """Refuse YAML that nests too deep, or means far more than it says, before it is built.

    Broken YAML passes: the parser that builds it says where it is broken.

    Args:
        text: YAML.
        name: What it is, for the message.

    Raises:
        UserError: It nests deeper than `DEPTH`, or expands to more than `NODES` values.
    """
    if _brackets(text) > _BRACKETS:
        raise _too_deep(name)
    try:
        # the reader that builds it, so that both see the same text
        _count(YAML(typ="safe", pure=True).parse(text), name)
    except YAMLError:
        return
    except RecursionError as error:  # the scanner of flow collections
        raise _too_deep(name) from error


def parse_json(data: bytes | str) -> Any:
    """`json.loads` that says so where the nesting is too deep.

    Raises:
        ValueError: It is not JSON, or it nests too deep.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _brackets(text: str) -> int:
    """How many brackets are open at most, those inside quotes and comments too."""
    depth = most = 0
    for mark in _BRACKET.findall(text):
        depth += 1 if mark in "[{" else -1
        most = max(most, depth)
    return most


def _count(events: Any, name: str) -> None:
    """Count values as if aliases were written out."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor and values so far of each open collection
    total = 0

    def add(size: int) -> None:
        nonlocal total
        total += size
        if total > NODES:
            raise UserError(
                f"{name} stands for more than {NODES:,} values, most of them through aliases: write it out"
            )
        if open_nodes:
            anchor, sum_ = open_nodes[-1]
            open_nodes[-1] = (anchor, sum_ + size)

    for event in events:
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > DEPTH:
                raise _too_deep(name)
        elif isinstance(event, CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size
            total -= size - 1  # its values were counted one by one
            add(size)
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise UserError(f"{name} holds itself, through the alias *{event.anchor}: write it out")
            add(sizes.get(event.anchor, 1))
        elif isinstance(event, ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            add(1)


def _too_deep(name: str) -> UserError:
    return UserError(f"{name} nests deeper than {DEPTH} levels: no recipe needs that")
