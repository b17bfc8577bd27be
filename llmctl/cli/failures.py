"""What the command line says and returns when something goes wrong.

Exit codes: 0 done, 1 something failed that the user did not cause, 2 a mistake that the user can mend,
130 stopped by Ctrl-C, 141 the reader of our output went away.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

from llmctl.errors import EngineError, UserError

FAILED, MISTAKE, STOPPED, READER_GONE = 1, 2, 130, 141

_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def is_foreseen(error: BaseException) -> bool:
    """Whether `report` has words for it; anything else is a defect and keeps its traceback."""
    if isinstance(error, OSError):
        return isinstance(error, BrokenPipeError) or error.errno in _DISK_ERRNOS
    return isinstance(error, (UserError, EngineError, KeyboardInterrupt))


def report(error: BaseException, is_debug: bool) -> int:
    """Say on stderr what happened, in one line, below the traceback where that is asked for.

    Args:
        error: One that `is_foreseen`.
        is_debug: Whether to show the traceback.

    Returns:
        The exit code.
    """
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    if is_debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        say(f"stopped{_how_to_go_on()}")
        return STOPPED
    if isinstance(error, EngineError):
        say(f"error: {_one_line(error)}{_how_to_go_on()}")
        return FAILED
    if isinstance(error, OSError):
        from llmctl.runs.files import disk_error

        place = f"use {error.filename}" if error.filename is not None else "write"
        error = disk_error(error, place)
    say(f"error: {_one_line(error)}")
    return MISTAKE


def say(line: str) -> None:
    """A line on stderr."""
    print(line, file=sys.stderr, flush=True)


def _how_to_go_on() -> str:
    """What is true of a command that works on a run's folder, and of no other."""
    run = sys.modules.get("llmctl.runs.run")
    return "; the same command goes on from here" if run is not None and run.Run.was_opened else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
