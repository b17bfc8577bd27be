"""The lock of a folder: one process, and the kernel lets go when it dies."""

import os
import subprocess
import sys

import pytest

from llmctl.errors import UserError
from llmctl.runs.lock import FolderLock


def test_a_second_lock_is_refused_with_the_holders_pid_and_the_option_to_change(tmp_path):
    with FolderLock(tmp_path, ".train.lock", option="output"):
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}.*choose another output"):
            FolderLock(tmp_path, ".train.lock", option="output")
        FolderLock(tmp_path).release()  # a lock of another name is another lock


def test_a_released_lock_can_be_taken_and_released_again(tmp_path):
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / ".lock").exists()


def test_a_holder_that_dies_leaves_the_folder_free(tmp_path):
    code = (
        "import os, sys, pathlib; from llmctl.runs.lock import FolderLock;"
        "lock = FolderLock(pathlib.Path(sys.argv[1])); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with FolderLock(tmp_path):
        pass


def test_a_forked_worker_drops_its_copy(tmp_path):
    lock = FolderLock(tmp_path)
    (ready, tell_ready), (end, tell_end) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.close(tell_end)
        os.write(tell_ready, b"x")
        os.read(end, 1)  # lives until the parent has taken the lock again
        os._exit(0)
    try:
        os.read(ready, 1)
        lock.release()
        with FolderLock(tmp_path):
            pass
    finally:
        os.close(tell_end)
        os.waitpid(child, 0)
        for descriptor in (ready, tell_ready, end):
            os.close(descriptor)
