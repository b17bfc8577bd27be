"""Tasks by name: built in, from an installed package, or from a prefix such as gym:."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.registry import Registry
from llmctl.tasks.own_code import make_task
from llmctl.tasks.prefixes import PREFIXES
from llmctl.tasks.types import Task, TaskInfo

logger = logging.getLogger(__name__)

# An entry is a class or a function that takes the task's options; its attribute `info` describes the task.
TASKS: Registry[Callable[..., Any]] = Registry(
    "task",
    "llmctl.tasks",
    {
        "sort": "llmctl.tasks.sort:Sort",
        "letters": "llmctl.tasks.letters:Letters",
        "gsm8k": "llmctl.tasks.gsm8k:Gsm8k",
        "math": "llmctl.tasks.math:Math",
        "svamp": "llmctl.tasks.svamp:Svamp",
        "jsonl": "llmctl.tasks.jsonl:Jsonl",
    },
)


def list_tasks() -> list[TaskInfo]:
    """All tasks that `get_task` knows: the default one (sort) first, prefixes last.

    A task of an installed package that cannot be imported is listed with the reason.
    """
    return [*map(_info, TASKS), *(prefix.info() for prefix in PREFIXES.values())]


def get_task(name: str, path: str | Path | None = None, **options: Any) -> Task:
    """A task by name.

    Args:
        name: "sort", "letters", "gsm8k", "math", "svamp", "jsonl", the name of a task that an installed
            package registers, "gym:<dataset>" such as "gym:chain_sum", or "python:<module>:<attribute>",
            which imports the attribute from your own code: a task, or a callable that returns one (it
            receives `path`, where given, and the options).
        path: For tasks that are read from files. A JSONL file: every split name reads that file. A folder:
            split "train" reads train*.jsonl in it, "test" reads test*.jsonl.
        **options: See the task's class: `Sort`, `Jsonl`, `Gym` (the data set's own configuration).

    Returns:
        The task; `for problem in task` iterates over its default split.

    Raises:
        UserError: There is no such task or option, there is nothing at the path, or a package is missing.
    """
    given = {**options, **({} if path is None else {"path": path})}
    prefix, colon, _ = name.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix].make(name, given)
    if name not in TASKS:
        raise UserError(_unknown(name))
    make = TASKS[name]
    if callable(make):
        _check_options(name, make, given)
    return make_task(name, make, given)


def _info(name: str) -> TaskInfo:
    """What to list for a registered task; a third-party one may have no `info`."""
    try:
        entry = TASKS[name]
    except UserError as error:
        logger.warning("%s", error)
        return TaskInfo(name, f"cannot be used: {error}", splits=())
    info = getattr(entry, "info", None)
    if isinstance(info, TaskInfo):
        return replace(info, name=name)
    description = (inspect.getdoc(entry) or "a task of an installed package").splitlines()[0]
    return TaskInfo(name, description, splits=("its own",))


def _unknown(name: str) -> str:
    shown = {**{task: task for task in TASKS}, **{key: p.info().name for key, p in PREFIXES.items()}}
    near = difflib.get_close_matches(name.lower(), shown, n=1, cutoff=0.0)[0]
    return f"no task {name!r}; the nearest is {shown[near]!r}: `llmctl tasks list` shows all tasks"


def _check_options(name: str, make: Callable[..., Any], given: dict[str, Any]) -> None:
    parameters = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # the task checks its options itself
    known = list(parameters)
    for option in given:
        if option == "path" and option not in known:
            raise UserError(f"{name} got a path, but its problems are generated: leave path out")
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise UserError(f"{name} has no option {option!r}{hint}: it takes {', '.join(known) or 'none'}")
