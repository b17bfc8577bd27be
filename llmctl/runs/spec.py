"""The one life of every kind of run: a recipe is checked, estimated, executed and shown.

A room describes each of its runs with one `RunSpec`, in its `spec.py`. The command line does the rest in the
same way for all of them (`llmctl.cli.run_command`):

    load the recipe -> --dry-run: print the recipe and `estimate`
                    -> `preflight` -> open the run's folder -> `execute` -> `show`, or JSON

The preflight runs once, before there is a folder, so that a mistake in the recipe leaves nothing behind.
From Python, with a run that is open already: `spec.start(run, recipe)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmctl.runs.recipe import Recipe
from llmctl.runs.run import Run
from llmctl.runs.tables import Table

R = TypeVar("R", bound=Recipe)
C = TypeVar("C")  # what the preflight has checked
M = TypeVar("M")  # the metrics, which `--json` prints

Shown = Iterable[Table | str]
"""What a command prints for people: tables, and lines of text."""


@dataclass(frozen=True)
class RunSpec(Generic[R, C, M]):
    """How runs of one kind are checked, estimated, executed and shown."""

    recipe: type[R]
    """The class of the recipe."""
    preflight: Callable[[R], C]
    """Finds mistakes that would stop the run later, and returns the inputs that it has checked. It loads no
    weights and raises `UserError`."""
    estimate: Callable[[R], Mapping[str, Any]]
    """The work that the recipe means, in words and numbers; for `--dry-run`. It is asked without a preflight,
    so that a plan needs no model, and it reads data only where it has to count them."""
    execute: Callable[[Run, R, C, bool], M]
    """Does what the run lacks, given the checked inputs and whether to show no progress."""
    show: Callable[[Run, R, M], Shown]
    """The results for people."""

    def start(self, run: Run, recipe: R, *, quiet: bool = False) -> M:
        """Check the recipe, then execute it in a run that is open.

        Args:
            run: Open, with this recipe.
            recipe: Resolved.
            quiet: Show no progress.

        Returns:
            The metrics.

        Raises:
            UserError: The recipe asks for something that cannot be used.
        """
        return self.execute(run, recipe, self.preflight(recipe), quiet)
