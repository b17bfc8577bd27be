"""Rows of problems: from JSONL files, or from the Hub. One row at a time, with its place for messages."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmctl.errors import UserError
from llmctl.trust.limits import parse_json


@dataclass(frozen=True)
class Row:
    """One row of a data set."""

    key: str  # unique and stable within the source, such as "train:17"
    place: str  # for messages, such as "train.jsonl, line 17"
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must hold text or a number; the number is spelled as JSON spells it.

        Raises:
            UserError: The field is missing, empty or something else.
        """
        value = self.fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(int(value)) if float(value).is_integer() else repr(value)
        if isinstance(value, str) and value.strip():
            return value
        found = "is missing" if name not in self.fields else f"is {value!r:.40}"
        raise UserError(
            f"{self.place}: field {name!r} {found}, but it must be text or a number; "
            f"the row has {', '.join(map(repr, self.fields)) or 'no fields'}"
        )


class RowSource(Protocol):
    """Where rows come from."""

    def rows(self, split: str, seed: int) -> Iterator[Row]:
        """Rows of a split: in stored order for seed 0, else in a permutation that the seed fixes."""
        ...

    def count(self, split: str) -> int:
        """How many rows a split has."""
        ...


class FileSource:
    """Rows of a JSONL file, or of the files of a folder; never more than one row in memory.

    With a file, every split name reads that file. With a folder, split "train" reads `train*.jsonl` in
    the order of their names, and so for any other split name.
    """

    def __init__(self, path: str | Path) -> None:
        """Remember the path.

        Raises:
            UserError: Nothing is there.
        """
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise UserError(
                f"no file or folder at {self.path}: give the path of a JSONL file, or of its folder"
            )

    def rows(self, split: str, seed: int) -> Iterator[Row]:
        """See `RowSource`; a seed other than 0 keeps 8 bytes a line, the offsets, in memory.

        Raises:
            UserError: No file for the split, no rows, or a line that is no JSON object (with its number).
        """
        empty = True
        for row in self._in_order(split) if seed == 0 else self._permuted(split, seed):
            empty = False
            yield row
        if empty:
            raise UserError(f"{self.path} has no rows for split {split!r}: one JSON object a line is needed")

    def count(self, split: str) -> int:
        """How many lines hold something; they are not parsed."""
        return sum(1 for path in self._files(split) for _ in _lines(path))

    def _files(self, split: str) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        found = sorted(self.path.glob(f"{split}*.jsonl"))
        if not found:
            here = ", ".join(sorted(path.name for path in self.path.glob("*.jsonl"))[:5]) or "no JSONL file"
            raise UserError(
                f"folder {self.path} has no {split}*.jsonl for split {split!r} (it has {here}): "
                "rename a file, or give the path of the file itself"
            )
        return found

    def _in_order(self, split: str) -> Iterator[Row]:
        for path in self._files(split):
            for number, _, line in _lines(path):
                yield _parse(path, number, line)

    def _permuted(self, split: str, seed: int) -> Iterator[Row]:
        files = self._files(split)
        places = [(array("Q"), array("Q")) for _ in files]  # line numbers and byte offsets
        for path, (numbers, offsets) in zip(files, places, strict=True):
            for number, offset, _ in _lines(path):
                numbers.append(number)
                offsets.append(offset)
        order = array("Q", range(sum(len(numbers) for numbers, _ in places)))
        random.Random(seed).shuffle(order)
        starts = [sum(len(numbers) for numbers, _ in places[:index]) for index in range(len(files))]
        for position in order:
            index = max(i for i, start in enumerate(starts) if start <= position and len(places[i][0]))
            numbers, offsets = places[index]
            at = position - starts[index]
            with files[index].open("rb") as stream:
                stream.seek(offsets[at])
                yield _parse(files[index], numbers[at], stream.readline())


class HubSource:
    """Rows of a data set on the Hugging Face Hub, through `datasets`; loaded on the first use.

    Args:
        name: The data set's name on the Hub.
        configs: Configurations whose rows follow one another; (None,) for the only one.
        splits: Split names that the data set has.
        what: The task's name, for messages.
    """

    def __init__(
        self, name: str, configs: tuple[str | None, ...], splits: tuple[str, ...], what: str
    ) -> None:
        self.name, self.configs, self.splits, self.what = name, configs, splits, what
        self._loaded: dict[tuple[str | None, str], Any] = {}

    def rows(self, split: str, seed: int) -> Iterator[Row]:
        """See `RowSource`; the rows stay in memory-mapped files.

        Raises:
            UserError: No such split, or the data set cannot be had (no network, say).
        """
        tables = [(config, self._load(config, split)) for config in self.configs]
        places = [(table, config, index) for config, data in tables for table, index in _indexed(data)]
        if seed:
            random.Random(seed).shuffle(places)
        for table, config, index in places:
            label = f"{config}:{split}:{index}" if config and len(self.configs) > 1 else f"{split}:{index}"
            yield Row(key=label, place=f"{self.name}, {label}", fields=table[index])

    def count(self, split: str) -> int:
        """How many rows a split has."""
        return sum(len(self._load(config, split)) for config in self.configs)

    def _load(self, config: str | None, split: str) -> Any:
        if split not in self.splits:
            raise UserError(
                f"{self.what} has no split {split!r}, only {', '.join(self.splits)}: choose one of these"
            )
        if (config, split) not in self._loaded:
            import datasets

            try:
                self._loaded[config, split] = datasets.load_dataset(self.name, config, split=split)
            except Exception as error:  # the Hub client raises many kinds; all of them mean "not to be had"
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise UserError(
                    f"{self.what} cannot be loaded from the Hub ({self.name}: {reason:.120}): "
                    "give path= a JSONL file of it, or a folder with train*.jsonl and test*.jsonl"
                ) from error
        return self._loaded[config, split]


def _indexed(table: Any) -> Iterable[tuple[Any, int]]:
    return ((table, index) for index in range(len(table)))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, byte offset, line) of the lines that aren't blank."""
    offset = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a readable JSONL file") from error


def _parse(path: Path, number: int, line: bytes) -> Row:
    place = f"{path}, line {number}"
    try:
        fields = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{place}: not a JSON object ({reason:.100}): mend or remove the line") from error
    if not isinstance(fields, dict):
        kind = type(fields).__name__
        raise UserError(
            f"{place}: a JSON {kind}, but one JSON object a line is needed: write one problem a line"
        )
    return Row(key=f"{path.stem}:{number}", place=place, fields=fields)
