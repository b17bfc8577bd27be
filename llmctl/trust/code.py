"""Whether code that is not llmctl's may run: a task from Python, or model code that comes with weights.

The user decides once per process, by `--allow-code` on the command line or `allow_code()` from Python. No
recipe, job or run folder can decide it. Entry points of installed packages are code that the user installed,
and need no such word.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from llmctl.errors import UserError

FLAG = "--allow-code"  # of commands, and of the processes that they start
_allowed = False


class CodeRefusedError(UserError):
    """Code of others would have to run, and the user has not allowed it."""


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
        CodeRefusedError: The user has not allowed it.
    """
    if not _allowed:
        raise CodeRefusedError(
            f"{what} runs code that is not llmctl's: read that code, then start again with {FLAG} "
            "(from Python: llmctl.trust.allow_code())"
        )


@contextlib.contextmanager
def code_stopped() -> Iterator[None]:
    """Run no code of others in this block, whatever the user allowed; for dry runs."""
    before = _allowed
    allow_code(False)
    try:
        yield
    finally:
        allow_code(before)


def code_named(content: Any, place: str = "") -> list[str]:
    """What would run code of others, as a recipe's content names it; one phrase per place.

    Args:
        content: Nested plain values.
        place: The dotted key of the content.
    """
    if isinstance(content, str):
        name = content.strip()
        return [f"{place} {name!r}"] if name.startswith("python:") and _is_task_key(place) else []
    if isinstance(content, Mapping):
        inner = {f"{place}.{key}" if place else str(key): value for key, value in content.items()}
    elif isinstance(content, (list, tuple)):
        inner = {f"{place}.{index}": value for index, value in enumerate(content)}
    else:
        is_trusting = place.rpartition(".")[2] == "trust_remote_code" and bool(content)
        return [place] if is_trusting else []
    return [phrase for key, value in inner.items() for phrase in code_named(value, key)]


def _is_task_key(place: str) -> bool:
    return place.rpartition(".")[2] in ("name", "task")


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
