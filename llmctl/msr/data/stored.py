"""A run's folder that is read and not written: without its lock, by any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from llmctl.errors import UserError
from llmctl.msr.recipe import MsrRecipe
from llmctl.runs import Journal, load_recipe


class Journals(Protocol):
    """A run's folder, as far as it is read here: a `Run`, or a `StoredRun`."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        ...

    def journal(self, name: str) -> Journal:
        """The journal of that name; a missing one is empty."""
        ...


class StoredRun:
    """A run that is read without its lock, also while it is in use.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def journal(self, name: str) -> Journal:
        """See `Run.journal`; to be read, not appended to."""
        return Journal(self.folder / "journal" / f"{name}.jsonl")


def run_recipe(folder: Path) -> MsrRecipe:
    """The recipe that a run was made with.

    Raises:
        UserError: There is none.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run: give the folder of an `llmctl msr` run with --run")
    return load_recipe(MsrRecipe, folder / "recipe.yaml")
