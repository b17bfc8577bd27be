"""Where each episode of an evaluation lies in its journal, and which of its turns were right.

A journal can have 100 MB, most of it text. It is read once, line by line, and only the flags of its turns
are kept; the text of one episode is read again by offset when somebody opens it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.files.readers import LINE_BYTES, read_lines
from llmctl.rise.records import Evaluation, Turn
from llmctl.trust import parse_json

_MOST = 100_000  # episodes of one evaluation
_MOST_TURNS = 100
_LONGEST_ID = 1_000  # characters
_TURNS = {
    (is_correct, is_repeat, has_error): Turn(
        "", 0.0, is_correct, None, "", 0, None, is_repeat, error="" if has_error else None
    )
    for is_correct in (False, True)
    for is_repeat in (False, True)
    for has_error in (False, True)
}  # shared by all episodes, so that an episode takes little memory


class EpisodeIndex:
    """The episodes of one evaluation of a RISE run.

    Args:
        path: `journal/evaluate-N.jsonl`.

    Raises:
        OSError: The file is gone, or cannot be read.
        UserError: A line of it is not an evaluation, or it holds too much.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.evaluations: list[Evaluation] = []
        """Every episode with its flags and without its texts, in the order of the journal."""
        self._places: dict[str, tuple[int, int]] = {}  # offset of the line, and which record of it
        for number, place, line in read_lines(path):
            for position, record in enumerate(_records(path, number, line)):
                self._add(number, place, position, record)

    def episode(self, problem: str) -> dict[str, Any] | None:
        """The whole record of an episode; None where there is no such problem.

        Raises:
            OSError: The file is gone, or cannot be read.
            UserError: The file has changed.
        """
        if (found := self._places.get(problem)) is None:
            return None
        place, position = found
        with self._path.open("rb") as file:
            file.seek(place)
            records = list(_records(self._path, 0, file.readline(LINE_BYTES)))
        if position >= len(records) or records[position].get("problem") != problem:
            raise UserError(f"{self._path.name} changed while it was read: reload the page")
        return records[position]

    def _add(self, number: int, place: int, position: int, record: dict[str, Any]) -> None:
        if len(self.evaluations) >= _MOST:
            raise UserError(f"{self._path.name} has more than {_MOST:,} episodes, which is too many to show")
        try:
            problem, turns = record["problem"], record["turns"]
            flags = tuple(
                _TURNS[bool(t["is_correct"]), bool(t.get("is_repeat")), t.get("error") is not None]
                for t in turns
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _broken(self._path, number) from error
        if not isinstance(problem, str) or len(problem) > _LONGEST_ID or len(flags) > _MOST_TURNS:
            raise _broken(self._path, number)
        self.evaluations.append(Evaluation(problem, "", (), flags))
        self._places.setdefault(problem, (place, position))


def _records(path: Path, number: int, line: bytes) -> Iterator[dict[str, Any]]:
    """The records of one line, which may be a chunk of several units of work."""
    try:
        content = parse_json(line)
        units = content["chunk"] if "chunk" in content else [content]
        records = [record for unit in units for record in unit["records"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path, number) from error
    if not all(isinstance(record, dict) for record in records):
        raise _broken(path, number)
    yield from records


def _broken(path: Path, number: int) -> UserError:
    return UserError(f"line {number} of {path.name} is not an evaluation: run it again")
