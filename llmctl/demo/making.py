"""Models that the demo makes itself, once: whole in the cache or absent, whoever asks at the same time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from llmctl.runs.files import disk_errors_as_user_errors


def make_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder of a model, built where it is not there yet.

    A lock lets only one process build it. It is built in a folder beside, and appears when it is whole.

    Args:
        target: The folder; it is there when its `config.json` is.
        build: Writes a model into an empty folder.

    Raises:
        UserError: The disk refused.
    """
    if (target / "config.json").is_file():
        return target
    with disk_errors_as_user_errors(f"make the demo model in {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target / "config.json").is_file():
                _build_beside(target, build)
    return target


def _build_beside(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}-"
    for left in target.parent.glob(f"{prefix}*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(scratch)
        scratch.chmod(0o755)  # mkdtemp keeps it to the owner; a cache may be shared
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
