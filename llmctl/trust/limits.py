"""How large and how deep a file of others may be, looked at before it is built in memory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from llmctl.errors import UserError
from llmctl.trust.names import open_without_links

RECIPE_BYTES = 2**20  # a recipe of a megabyte has no reader
JSON_BYTES = 2**28  # metrics and manifests; journals are read line by line
DEPTH = 64  # nesting that a recipe may have; Python's parsers recurse
NODES = 50_000  # values after aliases are expanded: ten lines of aliases can mean a billion


def read_limited(path: Path, most: int = RECIPE_BYTES) -> bytes:
    """The bytes of a plain file that is not larger than allowed.

    Args:
        path: Followed where it is a link: a recipe may lie anywhere that the user points at.
        most: Bytes.

    Raises:
        UserError: It is no plain file (a pipe would hang, a device never ends), or it is too large.
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, os.strerror(21), str(path))
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is a pipe or a device, but a plain file is needed: copy it into a file")
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path} is larger than {most:,} bytes: is it the right file?")
    return data


def read_in_run(path: Path, most: int = JSON_BYTES) -> bytes:
    """As `read_limited`, for a file of a run folder: a link is refused.

    Raises:
        UserError: As `read_limited`, or it is a link.
        OSError: It cannot be read.
    """
    os.close(open_without_links(path, os.O_RDONLY | os.O_NONBLOCK))
    return read_limited(path, most)


def check_yaml(text: str, name: str = "the YAML") -> None:
    """Refuse YAML that nests too deep, or means far more than it says, before it is built.

    Broken YAML passes: the parser that builds it says where it is broken.

    Args:
        text: YAML.
        name: What it is, for the message.

    Raises:
        UserError: It nests deeper than `DEPTH`, or expands to more than `NODES` values.
    """
    try:
        _count(yaml.parse(text, Loader=yaml.SafeLoader), name)
    except yaml.YAMLError:
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
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > DEPTH:
                raise _too_deep(name)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size
            total -= size - 1  # its values were counted one by one
            add(size)
        elif isinstance(event, yaml.AliasEvent):
            add(sizes.get(str(event.anchor), 1))
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            add(1)


def _too_deep(name: str) -> UserError:
    return UserError(f"{name} nests deeper than {DEPTH} levels: no recipe needs that")
