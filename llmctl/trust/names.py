"""Names inside a folder: nothing that a run folder says may reach a file outside of it.

A name with "..", an absolute name, or a link that leads out is refused before anything is read, written or
removed. Files are opened without following a link in their last place.
"""

from __future__ import annotations

import errno
import os
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
