"""Parquet files of a run: written atomically, and opened with a one-line error if that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.files import TEMPORARY_SUFFIX, disk_error
from llmctl.trust.names import open_plain


@contextmanager
def new_parquet(path: Path, schema: Any) -> Iterator[Any]:
    """Open a `ParquetWriter`; at the end, its file is flushed to disk and replaces an old one.

    Args:
        path: The file.
        schema: An Arrow schema.

    Raises:
        UserError: The disk refused; an old file is untouched.
    """
    from pyarrow import parquet

    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        os.close(open_plain(temporary, os.O_WRONLY | os.O_CREAT))  # the writer would follow a link
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            yield writer
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, f"write {path}") from error
    finally:
        temporary.unlink(missing_ok=True)


def open_parquet(path: Path, remedy: str) -> Any:
    """Open a `ParquetFile`.

    Args:
        path: The file.
        remedy: What to do if the file cannot be read, such as "run the job again".

    Raises:
        UserError: The file does not exist, or cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        os.close(open_plain(path, os.O_RDONLY))
        return parquet.ParquetFile(path)
    except OSError as error:
        if error.errno is None:  # of Arrow: what the file holds, not the disk
            raise _unreadable(path, error, remedy) from error
        raise disk_error(error, f"read {path}") from error
    except pa.ArrowException as error:
        raise _unreadable(path, error, remedy) from error


def _unreadable(path: Path, error: Exception, remedy: str) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} is no readable Parquet file ({reason:.100}): {remedy}")
