"""Where each pair of a finished curve lies in its file, so that a page of pairs is read without the rest."""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import Any, BinaryIO

from llmctl.errors import UserError
from llmctl.explorer.files.file_cache import stamp_of
from llmctl.explorer.files.readers import LINE_BYTES, read_lines
from llmctl.trust import parse_json

_MOST = 2_000_000  # pairs of one curve
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
        self._stamp = stamp_of(path)
        self._offsets: dict[int | None, array[int]] = {}
        self.total = 0
        self._read()

    def is_old(self) -> bool:
        """Whether the file has changed since it was indexed."""
        return self._stamp != stamp_of(self._path)

    @property
    def counts(self) -> dict[int | None, int]:
        """Pairs by the k that reached them; None holds those that were not reached."""
        return {k: len(offsets) for k, offsets in self._offsets.items()}

    def page(self, k: int | None, offset: int, limit: int) -> list[dict[str, Any]]:
        """Pairs that exactly k tokens reached (None: not reached), in the order of the file."""
        wanted = self._offsets.get(k, array("q"))[offset : offset + limit]
        with self._path.open("rb") as file:
            return [self._read_pair(file, place) for place in wanted]

    def _read_pair(self, file: BinaryIO, place: int) -> dict[str, Any]:
        file.seek(place)
        try:
            pair: dict[str, Any] = parse_json(file.readline(LINE_BYTES))
        except ValueError as error:
            raise UserError(f"{self._path.name} changed while it was read: reload the page") from error
        return pair

    def _read(self) -> None:
        for number, place, line in read_lines(self._path):
            if number > _MOST:
                raise UserError(f"{self._path.name} has more than {_MOST:,} pairs, which is too many to show")
            # llmctl writes k at the start of a line: parsing the rest of it would take seconds.
            begins = _BEGINS.match(line)
            k = _short_k(begins[1]) if begins else self._parse_k(number, line)
            self._offsets.setdefault(k, array("q")).append(place)
            self.total = number

    def _parse_k(self, number: int, line: bytes) -> int | None:
        try:
            k = parse_json(line)["k"]
            if k is None or (isinstance(k, int) and 0 <= k < 10**6):
                return k
            raise ValueError("k is no number of tokens")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"line {number} of {self._path.name} is not a pair: run the curve again"
            ) from error


def _short_k(text: bytes) -> int | None:
    return None if text == b"null" else int(text)
