"""A journal: one line per finished unit of work, flushed to disk, so that a killed run loses nothing.

Invariant: after any crash the file is a sequence of whole lines, followed by at most one unfinished
line, which is ignored and is cut off before the next append. A unit of work is therefore either recorded
completely or done again. Kept by hand: no library keeps this invariant for plain text that people can read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.files import disk_error, sync_folder, to_json, write_all
from llmctl.trust.limits import LINE_BYTES, parse_json
from llmctl.trust.names import open_plain

logger = logging.getLogger(__name__)

RESERVED = ("key", "chunk")


class Journal:
    """An append-only JSONL file with a unique key per line.

    Only the keys are kept in memory; records are streamed from disk. Several threads may append; the lock of
    the run ensures that only one process does.

    Args:
        path: The file; the first append creates it.

    Raises:
        UserError: A line before the last is broken, or a key is repeated (with the line number).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, None] = {}  # a dict, because it keeps the order of the file
        self._end = 0  # bytes; the whole lines end here
        self._descriptor: int | None = None
        self._mutex = threading.Lock()
        for number, line, end in _whole_lines(path):
            key = _parse(path, number, line)["key"]
            if key in self._keys:
                raise UserError(
                    f"{path}, line {number}: the key {key!r} is repeated; remove one of the two lines"
                )
            self._keys[key] = None
            self._end = end

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in the order of the file."""
        return tuple(self._keys)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Records in the order of the file, each with its key under "key"; those of a chunk one by one."""
        return read_journal(self.path, self._end)

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Record a finished unit of work; when this returns, the record is on the disk.

        Args:
            key: The unit of work; unique in this journal.
            record: Its result: anything that `files.to_json` can write, without a field "key" or "chunk".

        Raises:
            UserError: The key exists already, or the disk refused; the journal is unchanged then.
            ValueError: The record cannot be written as JSON.
        """
        self._append_line(key, {"key": key, **_checked(record)})

    def append_many(self, key: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Record several results under one key, all or none of them.

        Args:
            key: The chunk; unique in this journal.
            records: As in `append`; they come back one by one from iteration, each with this key.

        Raises:
            UserError: As `append`.
            ValueError: As `append`.
        """
        self._append_line(key, {"key": key, "chunk": [_checked(record) for record in records]})

    def close(self) -> None:
        """Close the file; another append opens it again."""
        with self._mutex:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append_line(self, key: str, content: Mapping[str, Any]) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a journal's key is a string, not {key!r}")
        line = to_json(content).encode() + b"\n"
        with self._mutex:
            if key in self._keys:
                raise UserError(f"{self.path} holds the key {key!r} already, and keys must be unique")
            try:
                self._write(key, line)
            except OSError as error:
                raise disk_error(error, f"append to {self.path}") from error

    def _write(self, key: str, line: bytes) -> None:
        """Append a line and flush it, or leave file and keys as they were, whatever interrupts."""
        descriptor = self._open()
        end = self._end + len(line)
        try:
            write_all(descriptor, line)
            os.fsync(descriptor)
            self._keys[key] = None
            self._end = end
        except BaseException:
            if self._end != end:
                self._keys.pop(key, None)
                # Should this fail too, the unfinished line is cut off by the next append or the next start.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._end)
            os.close(descriptor)
            self._descriptor = None
            raise

    def _open(self) -> int:
        """The file, open at the end of its whole lines, with whatever came after cut off."""
        if self._descriptor is None:
            is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_plain(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                os.ftruncate(descriptor, self._end)
                if is_new:
                    sync_folder(self.path.parent)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor


def read_journal(path: Path, end: int | None = None) -> Iterator[dict[str, Any]]:
    """Stream the records of a journal without holding them, also while another process appends to it.

    Args:
        path: The file; a missing one has no records.
        end: Stop at this offset, in bytes; at the end of the file where None.

    Yields:
        Records, each with its key under "key"; those of a chunk one by one.

    Raises:
        UserError: A line before the last is broken (with the line number).
    """
    for number, line, _ in _whole_lines(path, end):
        content = _parse(path, number, line)
        if "chunk" not in content:
            yield content
            continue
        for record in content["chunk"]:
            yield {"key": content["key"], **record}


def _whole_lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, bytes, int]]:
    """Line number (from 1), bytes and end offset of every whole line; warns of an unfinished last one.

    Lines from offset `limit` on, which another thread may be writing, are left alone.
    """
    try:
        file = os.fdopen(open_plain(path, os.O_RDONLY), "rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, f"read {path}") from error
    with file:
        end = 0
        lines = iter(lambda: file.readline(LINE_BYTES + 1), b"")
        for number, line in enumerate(lines, start=1):
            if limit is not None and end >= limit:
                return
            if len(line) > LINE_BYTES:
                raise _broken(path, number, f"it is longer than {LINE_BYTES:,} bytes")
            if not line.endswith(b"\n"):
                logger.warning(
                    "%s: the last line (%d) is unfinished and is dropped; its work is done again",
                    path,
                    number,
                )
                return
            end += len(line)
            yield number, line, end


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The object of one line, with a string under "key"."""
    try:
        content = parse_json(line)
    except ValueError as error:
        raise _broken(path, number, "it is not JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("key"), str):
        raise _broken(path, number, 'it is not an object with a string under "key"')
    chunk = content.get("chunk", [])
    if not isinstance(chunk, list) or not all(isinstance(record, dict) for record in chunk):
        raise _broken(path, number, '"chunk" is not a list of objects')
    return content


def _broken(path: Path, number: int, reason: str) -> UserError:
    return UserError(
        f"{path}, line {number} is broken ({reason}): remove that line, and the work is done again"
    )


def _checked(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse field names that the journal uses itself."""
    for name in RESERVED:
        if name in record:
            raise ValueError(
                f"a record of a journal cannot have a field {name!r}, which the journal itself uses"
            )
    return record
