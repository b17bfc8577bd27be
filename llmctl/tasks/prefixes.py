"""Families of tasks whose names carry an argument: gym:<dataset> and python:<module>:<attribute>."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.tasks.types import Task, TaskInfo


@dataclass(frozen=True)
class TaskPrefix:
    """One family: what `llmctl tasks list` shows, and how a task is made from its full name and options."""

    info: Callable[[], TaskInfo]
    make: Callable[[str, dict[str, Any]], Task]


def _gym_info() -> TaskInfo:
    from llmctl.tasks.gym import Gym

    return Gym.info


def _gym_task(name: str, options: dict[str, Any]) -> Task:
    from llmctl.tasks.gym import Gym

    if "path" in options:
        path = str(options["path"])
        raise UserError(f"{name} got path {path!r}, but its problems are generated: leave path out")
    return Gym(name.removeprefix("gym:"), **options)


def _python_info() -> TaskInfo:
    return TaskInfo(
        "python:<module>:<attribute>", "a task of your own, from Python", "the module", ("its own",)
    )


def _python_task(name: str, options: dict[str, Any]) -> Task:
    from llmctl.tasks.own_code import task_from_python

    return task_from_python(name, options)


PREFIXES: Mapping[str, TaskPrefix] = {
    "gym": TaskPrefix(_gym_info, _gym_task),
    "python": TaskPrefix(_python_info, _python_task),
}
