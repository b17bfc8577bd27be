"""Make the demo's models, once: a model is complete in the cache or absent, also with several processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from llmctl.runs.files import disk_errors_as_user_errors


def make_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder of a model, which is built where it does not exist yet.

    A lock lets only one process build it. It is built in a temporary folder, which is renamed when complete.

    Args:
        target: The folder; it is complete when it has a `config.json`.
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
    for left in target.parent.glob(f"{prefix}*"):  # left by a killed process; this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(scratch)
        scratch.chmod(0o755)  # mkdtemp gives access to the owner only; a cache may be shared
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
