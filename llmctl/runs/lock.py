"""One process per folder: a lock that the kernel releases when its holder dies, however it dies.

Kept by hand, because the lock also names its holder and is dropped by forked workers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from pathlib import Path
from types import TracebackType

from llmctl.errors import UserError
from llmctl.runs.files import disk_error, write_all
from llmctl.trust.names import open_plain

LOCK_NAME = ".lock"

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """An exclusive `flock` on a file in a folder, which names the process that holds it.

    The file stays when the lock is released: removing it would let two processes lock two files of one
    name. Forked workers drop their copy of the lock, so that a worker that a killed run left behind does
    not keep the folder locked.

    Args:
        folder: The folder; it must exist.
        name: Name of the lock file.
        option: What to choose another value of where the folder is in use, for the message.

    Raises:
        UserError: Another process holds the lock (with its pid), or the disk refused.
    """

    def __init__(self, folder: Path, name: str = LOCK_NAME, option: str = "--run") -> None:
        self.path = folder / name
        self._descriptor: int | None = None
        try:
            descriptor = open_plain(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise disk_error(error, f"write {self.path}") from error
        try:
            _lock(descriptor, folder, option)
            os.ftruncate(descriptor, 0)
            write_all(descriptor, f"{os.getpid()}\n".encode())
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise disk_error(error, f"write {self.path}") from error
            raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Release the lock; calling it twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(descriptor: int, folder: Path, option: str) -> None:
    """Take the lock, or name the process that holds it."""
    import fcntl  # not on Windows; nothing that only reads runs needs it

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        holder = f"process {pid}" if pid else "another process"
        raise UserError(
            f"{folder} is in use by {holder}: wait until it ends, stop it, or choose another {option}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise UserError(
            f"{folder} is on a file system without locks, which keep a second process out: "
            "choose a folder on a local disk"
        ) from error


def _drop_in_child() -> None:
    """Close the copies that a fork made; the parent keeps its lock."""
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)
