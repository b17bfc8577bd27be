"""The section of a recipe that names a task; recipes add their own splits and limits to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from llmctl.runs import Recipe
from llmctl.tasks.registry import get_task
from llmctl.tasks.types import Task


class TaskSettings(Recipe):
    """Which task the problems come from."""

    name: str
    """Name of the task, as `llmctl tasks list` shows it."""
    path: Path | None = None
    """File or folder, for tasks that are read from files."""
    options: dict[str, Any] = {}
    """Options of the task."""

    @model_validator(mode="after")
    def _options_are_not_settings(self) -> TaskSettings:
        if "name" in self.options:
            raise ValueError("options.name is not an option of a task: give it as the task's name")
        if "path" in self.options and (self.path or getattr(self, "validation_path", None)):
            raise ValueError("path is given, and options.path as well: leave one of them out")
        return self

    def open(self, path: Path | None = None) -> Task:
        """The task with these options, from `path` in place of the settings' own where it is given.

        Raises:
            UserError: There is no such task, option or file.
        """
        path = self.path if path is None else path
        return get_task(self.name, **({} if path is None else {"path": path}), **self.options)
