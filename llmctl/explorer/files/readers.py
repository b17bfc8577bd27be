"""Reads files of runs that strangers may have written, with bounds on size, depth and length of a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.trust import check_yaml, parse_json, read_limited

RECIPE_BYTES = 2**18  # a recipe that a person can read
METRICS_BYTES = 2**26  # the reachable set of a vocabulary of 250,000 tokens fits
LINE_BYTES = 2**23  # one finished unit of work


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe of a run.

    Raises:
        UserError: It is no mapping, too large, or stands for far more than it says.
        OSError: It cannot be read.
    """
    from llmctl.runs.recipe import read_recipe_file

    check_yaml(read_limited(path, RECIPE_BYTES).decode(errors="replace"), path.name)
    try:
        return read_recipe_file(path)
    except RecursionError as error:
        raise UserError(f"{path.name} nests too deep: no recipe needs that") from error


def read_object(path: Path, most: int = METRICS_BYTES) -> dict[str, Any]:
    """The object of a JSON file, such as `metrics.json` of a finished run.

    Args:
        path: The file.
        most: Its largest size in bytes.

    Raises:
        UserError: It is no JSON object, too large, or nests too deep.
        OSError: It cannot be read.
    """
    data = read_limited(path, most)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise UserError(f"{path.name} is not valid JSON ({error}): run it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} is not an object: run it again")
    return content


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), offset in bytes and content of every line, without holding the file.

    An unfinished last line is left out: its run is still writing it.

    Raises:
        UserError: A line is too long.
        OSError: The file cannot be read.
    """
    place = 0
    with path.open("rb", buffering=2**20) as file:
        number = 0
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise UserError(f"line {number} of {path.name} is longer than {LINE_BYTES:,} bytes")
            if not line.endswith(b"\n"):
                return
            yield number, place, line
            place += len(line)
