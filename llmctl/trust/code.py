"""Whether code that is not llmctl's may run: a task from Python, or model code that comes with weights.

The user decides once per process, by `--allow-code` on the command line or `allow_code()` from Python. No
recipe, job or run folder can decide it. Entry points of installed packages are code that the user installed,
and need no such word.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from llmctl.errors import UserError

_allowed = False


def allow_code(allowed: bool = True) -> None:
    """Let this process run code that a recipe names, or stop letting it; a worker is told by its parent."""
    global _allowed
    _allowed = allowed


def is_code_allowed() -> bool:
    """Whether this process may run code that a recipe names."""
    return _allowed


def check_code(what: str) -> None:
    """Refuse to run code of others unless the user allowed it.

    Args:
        what: What would run, for the message: "task 'python:my_tasks:make'".

    Raises:
        UserError: The user has not allowed it.
    """
    if not _allowed:
        raise UserError(
            f"{what} runs code that is not llmctl's: read that code, then start again with --allow-code "
            "(from Python: llmctl.trust.allow_code())"
        )


def check_module(name: str, what: str) -> None:
    """Refuse a module of Python itself: what it offers can do anything, and none of it is a task.

    Args:
        name: The dotted name of a module.
        what: What names it, for the message.

    Raises:
        UserError: The module belongs to Python's standard library.
    """
    if _is_of_python(name):
        raise UserError(f"{what} names {name}, a module of Python's standard library: name a module of yours")


def check_origin(found: Any, what: str) -> None:
    """Refuse a function or class of Python itself that a module of someone else passes on.

    Raises:
        UserError: It is defined in the standard library.
    """
    home = found.__module__ if inspect.isclass(found) or inspect.isroutine(found) else None
    if home is not None and _is_of_python(home):
        raise UserError(
            f"{what} is {home}.{found.__name__}, which belongs to Python: name something of yours"
        )


def _is_of_python(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names
