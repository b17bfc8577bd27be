"""Messages and exit codes of commands that fail.

Exit codes: 0 success; 1 a failure that the user did not cause; 2 a mistake that the user can fix; 130 stopped
with Ctrl-C; 141 the reader of the output closed the pipe.
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
    """Whether `report` has a message for the error; any other error is a defect and keeps its traceback."""
    if isinstance(error, OSError):
        return isinstance(error, BrokenPipeError) or error.errno in _DISK_ERRNOS
    return isinstance(error, (UserError, EngineError, KeyboardInterrupt))


def report(error: BaseException, is_debug: bool) -> int:
    """Print the error on stderr in one line, after the traceback if it is asked for.

    Args:
        error: An error for which `is_foreseen` is true.
        is_debug: Whether to show the traceback.

    Returns:
        The exit code.
    """
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more when it exits: discard that.
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
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def _how_to_go_on() -> str:
    """The hint for a command that works in a run's folder; empty for any other."""
    run = sys.modules.get("llmctl.runs.run")
    return "; run the same command again to continue" if run is not None and run.Run.was_opened else ""


def _one_line(error: BaseException) -> str:
    """The message without line breaks, and without characters that would steer a terminal."""
    line = " ".join(str(error).split())
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in line)
