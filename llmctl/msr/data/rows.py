"""Stream the rows of CSV, TSV, JSONL (each also with .gz) and Parquet files, each with its position."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.files import disk_error

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".parquet")
_PARQUET_ROWS = 4096  # held in memory at a time
_MAX_FIELD_CHARS = 1 << 24


@dataclass(frozen=True)
class SourceRow:
    """Named fields of a row, and the position of the row in its file."""

    place: str  # for messages, such as "reviews.jsonl, line 17"
    fields: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """A field that must exist, though it may be empty.

        Raises:
            UserError: The row has no such column.
        """
        if column not in self.fields:
            known = ", ".join(map(repr, self.fields)) or "none"
            raise UserError(
                f"{self.place}: no column {column!r}, only {known}: rename one, or name it in the recipe"
            )
        return self.fields[column]

    def identifier(self, column: str) -> str:
        """A user or an item, as text without blanks at its ends.

        Raises:
            UserError: It is missing or empty.
        """
        value = self.get(column)
        text = "" if value is None or isinstance(value, bool) else str(value).strip()
        if not text:
            raise UserError(f"{self.place}: column {column!r} is empty, but it must name a user or an item")
        return text

    def text(self, column: str) -> str:
        """Text on one line; lists of text are joined, and null becomes empty."""
        value = self.get(column)
        parts = value if isinstance(value, (list, tuple)) else [value]
        return " ".join(" ".join(str(part) for part in parts if part is not None).split())


def read_rows(path: Path) -> Iterator[SourceRow]:
    """Stream the rows of a file; the suffix of its name decides how it is read.

    Args:
        path: A file with one of `SUFFIXES`; text files may end in `.gz` after it.

    Raises:
        UserError: The file does not exist, has an unknown suffix, or has a broken row (with its line).
    """
    suffix = _kind(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix in (".csv", ".tsv"):
        return _read_table(path, "," if suffix == ".csv" else "\t")
    return _read_jsonl(path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line of a text file, gzip-compressed or not, line ends kept.

    Raises:
        UserError: The file cannot be read, is not UTF-8, or its compressed data is damaged (with the line).
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number + 1}: not UTF-8 text: convert the file to UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}, line {number + 1}: the compressed data is damaged or cut off ({error}): fetch it again"
        ) from error
    except OSError as error:
        raise disk_error(error, f"read {path}") from error


def _kind(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.name.endswith(".gz")):
        raise UserError(
            f"{path} is of an unknown kind: its name must end in {', '.join(SUFFIXES)} (text also .gz)"
        )
    return suffix


def _open(path: Path) -> io.TextIOBase:
    # newline="" leaves line ends inside quoted CSV fields to the csv module
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")  # type: ignore[return-value]
    return path.open(encoding="utf-8-sig", newline="")


def _read_table(path: Path, delimiter: str) -> Iterator[SourceRow]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter)
    columns: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: broken table ({error}): mend the line"
            ) from error
        if cells is None:
            break
        if not cells:
            continue
        if columns is None:
            columns = _header(path, cells)
            continue
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {start}: {len(cells)} fields, but the header names {len(columns)} columns: "
                "mend the line, or put fields that hold the separator in double quotes"
            )
        yield SourceRow(f"{path}, line {start}", dict(zip(columns, cells, strict=True)))
    if columns is None:
        raise UserError(f"{path} is empty: a first line with the names of the columns is needed")


def _header(path: Path, cells: Iterable[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise UserError(f"{path}, line 1: column {twice[0]!r} is there twice: rename one of them")
    return columns


def _read_jsonl(path: Path) -> Iterator[SourceRow]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{place}: not a JSON object ({reason:.100}): mend or remove the line") from error
        if not isinstance(fields, dict):
            raise UserError(f"{place}: a JSON {type(fields).__name__}, but each line must be a JSON object")
        yield SourceRow(place, fields)


def _read_parquet(path: Path) -> Iterator[SourceRow]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield SourceRow(f"{path}, row {number}", fields)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no readable Parquet file ({reason:.100}): write it again") from error
    except OSError as error:
        raise disk_error(error, f"read {path}") from error
