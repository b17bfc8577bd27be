"""Files that are complete or absent: atomic writes, valid JSON, and readable disk errors.

Every file of a run goes through here, so that a process killed at any instant, or a full disk, leaves
the old version or the new one and nothing between. Kept by hand: libraries for atomic writes do not flush the
folder, and none reports what to do about a full disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.trust.limits import JSON_BYTES, parse_json, read_limited
from llmctl.trust.names import open_plain

TEMPORARY_SUFFIX = ".llmctl-tmp"

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EACCES: ("permission is denied", "choose a place that you may write to, or change its permissions"),
    errno.EPERM: ("permission is denied", "choose a place that you may write to, or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose a place that you may write to"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("it is a folder, not a file", "choose another path"),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
}


def disk_error(error: OSError, action: str) -> UserError:
    """Make the error that says in one line what the disk refused and what to do.

    Args:
        error: What the operating system raised.
        action: What the program tried to do, e.g. "write runs/a/metrics.json".

    Returns:
        The error to raise, `from` the original.
    """
    reason, remedy = _REASONS.get(
        error.errno or 0, (error.strerror or str(error), "check the disk and run the same command again")
    )
    return UserError(f"cannot {action}: {reason}; {remedy}")


@contextlib.contextmanager
def disk_errors_as_user_errors(action: str) -> Iterator[None]:
    """Turn an `OSError` of the block into the one-line `UserError` of `disk_error`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, action) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: The folder cannot be made there.
    """
    with disk_errors_as_user_errors(f"make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names, so that a rename or a new file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes; `os.write` alone may stop early when the disk fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: write a temporary file beside it, flush it to disk, rename it.

    Raises:
        UserError: The disk refused; the old file, if there was one, is untouched.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        descriptor = open_plain(temporary, os.O_WRONLY | os.O_CREAT)
        try:
            os.ftruncate(descriptor, 0)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise disk_error(error, f"write {path}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8; lone surrogates become question marks) atomically; see `write_bytes`."""
    write_bytes(path, text.encode(errors="replace"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically, indented and ending in a newline; see `to_json` and `write_bytes`."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path, *, is_link_allowed: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        is_link_allowed: Files of a run are no links; those of a model in the Hub's cache are.

    Raises:
        UserError: The file cannot be read, is a link or a pipe, is too large, or is not JSON (with the line).
    """
    with disk_errors_as_user_errors(f"read {path}"):
        data = read_limited(path, JSON_BYTES, is_link_allowed=is_link_allowed)
    try:
        return parse_json(data)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or remove it") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """Make JSON text that every parser accepts.

    NumPy numbers and arrays, paths, and objects with `to_dict()` are written as plain values.
    Text with lone surrogates, which models can emit and UTF-8 cannot encode, is written with escapes.

    Raises:
        ValueError: There is a NaN or an infinity, which JSON does not have (with its key), or a value of a
            type that JSON cannot hold.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)
        if _has_surrogates(text):
            text = json.dumps(value, indent=indent, allow_nan=False, default=_plain)
        return text
    except ValueError as error:
        place = _find_not_finite(value, "")
        if place is None:
            raise
        raise ValueError(f"{place} is not a finite number, which JSON cannot hold; use None") from error
    except TypeError as error:
        raise ValueError(f"this is not a value that JSON can hold: {error}") from error


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _plain(value: Any) -> Any:
    """Convert a value that `json` does not know into one that it knows."""
    for method in ("to_dict", "tolist"):  # records of llmctl; NumPy scalars and arrays
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__}: {value!r}")


def _find_not_finite(value: Any, place: str) -> str | None:
    """The dotted key of the first NaN or infinity."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{place or 'the value'} = {value}"
    if isinstance(value, dict):
        pairs = [(f"{place}.{key}" if place else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        pairs = [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    elif any(hasattr(value, method) for method in ("to_dict", "tolist")):
        return _find_not_finite(_plain(value), place)
    else:
        return None
    return next((found for key, item in pairs if (found := _find_not_finite(item, key))), None)
