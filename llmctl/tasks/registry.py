"""Tasks by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.tasks.types import Task


@dataclass(frozen=True)
class TaskInfo:
    """What `llmctl tasks list` says of a task."""

    name: str
    description: str  # one line
    needs: str  # the file or package that it needs, "" for nothing
    splits: tuple[str, ...]


_SPLITS = ("train", "test")
_FILE_OR_HUB = "path= a JSONL file or folder; without it, the Hub"
_INFOS = (
    TaskInfo("sort", "sort two-digit numbers; generated, for small models", "", _SPLITS),
    TaskInfo("gsm8k", "grade-school word problems", _FILE_OR_HUB, _SPLITS),
    TaskInfo("math", "competition problems with LaTeX answers", _FILE_OR_HUB, _SPLITS),
    TaskInfo("svamp", "elementary word problems in varied wordings", _FILE_OR_HUB, _SPLITS),
    TaskInfo("gym:<dataset>", "any reasoning-gym data set; generated", "the package reasoning-gym", _SPLITS),
    TaskInfo("jsonl", "a JSONL file of your own", "path= the file or folder", _SPLITS),
    TaskInfo("python:<module>:<attribute>", "a task of your own, from Python", "the module", ("its own",)),
)
# Where the classes live; imported when asked for.
_CLASSES = {
    "sort": ("llmctl.tasks.sort", "Sort"),
    "gsm8k": ("llmctl.tasks.gsm8k", "Gsm8k"),
    "math": ("llmctl.tasks.math", "Math"),
    "svamp": ("llmctl.tasks.svamp", "Svamp"),
    "jsonl": ("llmctl.tasks.jsonl", "Jsonl"),
}


def list_tasks() -> list[TaskInfo]:
    """All tasks that `get_task` knows, the default one (sort) first."""
    return list(_INFOS)


def get_task(name: str, path: str | Path | None = None, **options: Any) -> Task:
    """A task by name.

    Args:
        name: "sort", "gsm8k", "math", "svamp", "jsonl", "gym:<dataset>" such as "gym:chain_sum", or
            "python:<module>:<attribute>", which imports the attribute from code of yours: a task, or a
            callable that returns one (it gets `path`, where given, and the options).
        path: For tasks from files. A JSONL file: every split name reads that file. A folder: split
            "train" reads train*.jsonl in it, "test" reads test*.jsonl.
        **options: See the task's class: `Sort`, `Jsonl`, `Gym` (the data set's own configuration).

    Returns:
        The task; `for problem in task` walks its default split.

    Raises:
        UserError: No such task or option, nothing at the path, or a package is missing.
    """
    if name.startswith("python:"):
        return _from_python(name, {**options, **({} if path is None else {"path": path})})
    if name.startswith("gym:"):
        from llmctl.tasks.gym import Gym

        if path is not None:
            raise UserError(f"{name} got path {str(path)!r}, but its problems are generated: leave path out")
        return Gym(name.removeprefix("gym:"), **options)
    if name not in _CLASSES:
        raise UserError(_unknown(name))
    module, attribute = _CLASSES[name]
    make = getattr(importlib.import_module(module), attribute)
    given = {**options, **({} if path is None else {"path": path})}
    _check_options(name, make, given)
    task: Task = make(**given)
    return task


def _unknown(name: str) -> str:
    known = [info.name for info in _INFOS]
    near = difflib.get_close_matches(name.lower(), [*_CLASSES, "gym", "python"], n=1, cutoff=0.0)
    nearest = next(task for task in known if task.split(":")[0] == near[0]) if near else known[0]
    return f"no task {name!r}; the nearest is {nearest!r}: `llmctl tasks list` shows all tasks"


def _check_options(name: str, make: Callable[..., Any], given: dict[str, Any]) -> None:
    known = list(inspect.signature(make).parameters)
    for option in given:
        if option == "path" and option not in known:
            raise UserError(f"{name} got a path, but its problems are generated: leave path out")
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{name} has no option {option!r}; the nearest is {near!r}: it takes {', '.join(known)}"
            )


def _from_python(name: str, options: dict[str, Any]) -> Task:
    module_name, _, attribute = name.removeprefix("python:").partition(":")
    if not module_name or not attribute:
        raise UserError(f"task {name!r} must read python:MODULE:ATTRIBUTE, such as python:my_tasks:make_task")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # as `python -m` does; last, so that it hides nothing installed
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"task {name!r}: module {module_name!r} can't be imported ({error}): "
            "install it, or run where it lies"
        ) from error
    if not hasattr(module, attribute):
        raise UserError(
            f"task {name!r}: module {module_name!r} has no {attribute!r}: name a task or a function"
        )
    found = getattr(module, attribute)
    task = found if isinstance(found, Task) and not inspect.isclass(found) else _call(name, found, options)
    missing = [
        part for part in ("name", "__iter__", "problems", "conversation", "check") if not hasattr(task, part)
    ]
    if missing:
        raise UserError(
            f"task {name!r} is a {type(task).__name__} without {', '.join(missing)}: see llmctl.tasks.Task"
        )
    result: Task = task
    return result


def _call(name: str, found: Any, options: dict[str, Any]) -> Any:
    if not callable(found):
        raise UserError(
            f"task {name!r} is a {type(found).__name__}, but a task or a callable that returns one is needed"
        )
    try:
        inspect.signature(found).bind(**options)
    except TypeError as error:
        raise UserError(
            f"task {name!r} can't take the options given ({error}): change the options"
        ) from error
    return found(**options)
