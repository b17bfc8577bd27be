"""Where each pair of a finished curve lies in its file, so that a page of pairs is read without the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from llmctl.errors import UserError

_CHUNK = 2**24  # bytes read at a time
_BEGINS = re.compile(rb'\{"verdict": "[a-z]{1,20}", "k": (null|[0-9]{1,6}),')


class PairIndex:
    """Where each pair of a curve lies in its file, by the k that reached it.

    The file is read once, which takes a fraction of a second for 100,000 pairs. A page of pairs is then read
    by offset.

    Args:
        path: `pairs.jsonl` of a finished curve.

    Raises:
        OSError: The file is gone, or cannot be read.
        UserError: A line of it is not a pair.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._now()
        self._offsets: dict[int | None, list[int]] = {}
        self.total = 0
        self._read()

    def is_old(self) -> bool:
        """Whether the file has changed since it was indexed."""
        return self._stamp != self._now()

    @property
    def counts(self) -> dict[int | None, int]:
        """Pairs by the k that reached them; None holds those that were not reached."""
        return {k: len(offsets) for k, offsets in self._offsets.items()}

    def page(self, k: int | None, offset: int, limit: int) -> list[dict[str, Any]]:
        """Pairs that exactly k tokens reached (None: not reached), in the order of the file."""
        wanted = self._offsets.get(k, [])[offset : offset + limit]
        with self._path.open("rb") as file:
            return [self._read_pair(file, place) for place in wanted]

    def _read_pair(self, file: BinaryIO, place: int) -> dict[str, Any]:
        file.seek(place)
        try:
            pair: dict[str, Any] = json.loads(file.readline())
        except ValueError as error:
            raise UserError(f"{self._path.name} changed while it was read: reload the page") from error
        return pair

    def _now(self) -> tuple[int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size

    def _read(self) -> None:
        place = 0
        with self._path.open("rb", buffering=_CHUNK) as file:
            for number, line in enumerate(file, 1):
                # llmctl writes k at the start of a line: parsing the rest of it would take seconds.
                begins = _BEGINS.match(line)
                k = _short_k(begins[1]) if begins else self._parse_k(number, line)
                self._offsets.setdefault(k, []).append(place)
                place += len(line)
                self.total = number

    def _parse_k(self, number: int, line: bytes) -> int | None:
        try:
            k: int | None = json.loads(line)["k"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"line {number} of {self._path.name} is not a pair: run the curve again"
            ) from error
        return k


def _short_k(text: bytes) -> int | None:
    return None if text == b"null" else int(text)
