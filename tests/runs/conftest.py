import os
import signal
import time

import pytest


def _run_and_kill(work, is_time):
    """Start `work` in a process, `kill -9` it once `is_time`; tells whether that was before it was done."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    is_done = False
    while not is_done and not is_time():
        time.sleep(0.0002)
        is_done = os.waitpid(child, os.WNOHANG)[0] == child
    if is_done:
        return False
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture
def run_and_kill():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    return _run_and_kill
