"""What was read from files, kept for as long as the files stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from llmctl.errors import UserError

T = TypeVar("T")
Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp:
    """Time of the last change in nanoseconds and size in bytes, which tell a changed file.

    Raises:
        OSError: The file is gone, or cannot be read.
    """
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@dataclass(frozen=True)
class _Entry(Generic[T]):
    stamp: Stamp
    content: T | UserError
    size: int


class FileCache(Generic[T]):
    """Reads each file once, however many requests ask for it, and once more when it has changed.

    A file that is refused stays refused: a broken one is not read at each click.

    Args:
        read: Makes the content of a file; its `UserError` is kept, its `OSError` is not.
        size: How much of the cache a content takes.
        most: The sum of the sizes that are kept; the content that was used longest ago goes first.
    """

    def __init__(self, read: Callable[[Path], T], size: Callable[[T], int], most: int) -> None:
        self._read, self._size, self._most = read, size, most
        self._entries: OrderedDict[Path, _Entry[T]] = OrderedDict()
        self._mutex = threading.Lock()  # One request reads a file, the others wait for it.

    def get(self, path: Path) -> T:
        """The content of a file.

        Raises:
            UserError: The file is refused.
            OSError: It is gone, or cannot be read.
        """
        with self._mutex:
            entry = self._entries.pop(path, None)
            if entry is None or entry.stamp != stamp_of(path):
                entry = self._make(path)
            self._entries[path] = entry
            while len(self._entries) > 1 and sum(e.size for e in self._entries.values()) > self._most:
                self._entries.popitem(last=False)
        if isinstance(entry.content, UserError):
            raise UserError(str(entry.content))
        return entry.content

    def _make(self, path: Path) -> _Entry[T]:
        stamp = stamp_of(path)
        try:
            content = self._read(path)
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return _Entry(stamp, UserError(str(error)), 1)
        return _Entry(stamp, content, self._size(content))
