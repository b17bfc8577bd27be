"""Names inside a folder: nothing that a run folder says may reach a file outside of it.

A name with "..", an absolute name, or a link that leads out is refused before anything is read, written or
removed. Files are opened without following a link in their last place.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from llmctl.errors import UserError


def inside(folder: Path, name: str) -> Path:
    """The place of a name in a folder, links resolved up to its last part.

    The last part may be a link itself: a caller that opens it uses `open_without_links`, and one that
    removes it removes the link alone.

    Args:
        folder: A run folder; it may be reached through links itself.
        name: Relative, with forward slashes, as a manifest lists it.

    Raises:
        UserError: The name is empty or absolute, holds "..", or leads out of the folder through a link.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise UserError(f"{name!r} is not a name inside {folder}: the folder's files were changed by hand")
    root = folder.resolve()
    place = (folder / relative.parent).resolve() / relative.name
    if not place.is_relative_to(root) or place == root:
        raise UserError(f"{folder / relative} leads out of {folder} through a link: remove the link")
    return place


def refuse_link(path: Path) -> None:
    """Refuse a path whose last part is a link.

    Raises:
        UserError: It is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link, and llmctl makes none: remove it, or choose another folder")


def open_without_links(path: Path, flags: int, mode: int = 0o666) -> int:
    """`os.open` that does not follow a link in the last place.

    Raises:
        UserError: The path is a link.
        OSError: As `os.open`.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            refuse_link(path)
        raise


def open_plain(path: Path, flags: int, *, is_link_allowed: bool = False) -> int:
    """`os.open` of a plain file: never a pipe, which would hang, nor a device, nor (unless allowed) a link.

    Where the file is opened for writing, it may have no second name either: what is written would change a
    file elsewhere. Flags must not hold `O_TRUNC`: the caller truncates what has passed.

    Raises:
        UserError: It is a link, a pipe or a device, or has a second name and would be written.
        OSError: As `os.open`; also of a folder.
    """
    is_writing = flags & (os.O_WRONLY | os.O_RDWR) != 0
    try:
        if is_link_allowed:
            descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
        else:
            descriptor = open_without_links(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a pipe without a reader, a socket, a device
            raise _not_plain(path) from error
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise _not_plain(path)
        if is_writing and status.st_nlink > 1:
            raise UserError(f"{path} has a second name (a hard link), which would change as well: copy it")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_links_below(folder: Path, name: str) -> None:
    """Refuse a name in a folder that is a link, or a folder with links anywhere below it.

    Raises:
        UserError: There is a link, or the name leads out of the folder.
        OSError: A folder cannot be listed.
    """
    place = inside(folder, name)
    refuse_link(place)
    waiting = [place] if place.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    refuse_link(Path(entry.path))
                elif entry.is_dir():
                    waiting.append(Path(entry.path))


def _not_plain(path: Path) -> UserError:
    return UserError(f"{path} is a pipe or a device, but a plain file is needed: copy it into a file")
