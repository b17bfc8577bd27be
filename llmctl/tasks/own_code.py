"""A task from the user's own Python code, by the name python:MODULE:ATTRIBUTE."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any

from llmctl.errors import UserError
from llmctl.tasks.types import Task
from llmctl.trust.code import check_code, check_module, check_origin

_METHODS = ("name", "__iter__", "problems", "conversation", "check")


def task_from_python(name: str, options: dict[str, Any]) -> Task:
    """The task that python:MODULE:ATTRIBUTE names; the module is imported, so its code runs.

    Raises:
        CodeRefusedError: The user has not allowed it.
        UserError: It is of Python's standard library, there is no such module or attribute, or the attribute
            is not a task and returns none.
    """
    module_name, _, attribute = name.removeprefix("python:").partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"task {name!r} must read python:MODULE:ATTRIBUTE, such as python:my_tasks:make_task")
    check_module(module_name, f"task {name!r}")
    check_code(f"task {name!r}")
    module = _import(name, module_name)
    if not hasattr(module, attribute):
        raise UserError(
            f"task {name!r}: module {module_name!r} has no {attribute!r}: name a task or a function"
        )
    found = getattr(module, attribute)
    check_origin(found, f"task {name!r}")
    return make_task(name, found, options)


def make_task(name: str, found: Any, options: dict[str, Any]) -> Task:
    """The task that an object of somebody's code is or returns.

    Args:
        name: The name that the user asked for, for messages.
        found: A task, or a callable that takes the options and returns a task (a class, for example).
        options: Passed to the callable.

    Raises:
        UserError: It is neither of these, or it does not take the options.
    """
    task = found if isinstance(found, Task) and not inspect.isclass(found) else _call(name, found, options)
    if missing := [part for part in _METHODS if not hasattr(task, part)]:
        raise UserError(
            f"task {name!r} is a {type(task).__name__} without {', '.join(missing)}: see llmctl.tasks.Task"
        )
    result: Task = task
    return result


def _import(name: str, module_name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # as `python -m` does; last, so that it hides nothing installed
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"task {name!r}: module {module_name!r} cannot be imported ({error}): "
            "install it, or run the command in its folder"
        ) from error


def _call(name: str, found: Any, options: dict[str, Any]) -> Any:
    if not callable(found):
        raise UserError(
            f"task {name!r} is a {type(found).__name__}, but a task or a callable that returns one is needed"
        )
    try:
        inspect.signature(found).bind(**options)
    except TypeError as error:
        raise UserError(
            f"task {name!r} cannot take the options given ({error}): change the options"
        ) from error
    return found(**options)
