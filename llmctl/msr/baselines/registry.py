"""The registry of baselines.

A package adds a baseline by an entry point of the group `llmctl.baselines`:

[project.entry-points."llmctl.baselines"]
my-baseline = "my_package.baseline:ENTRY"      # a BaselineEntry
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.msr.baselines.base import Baseline
from llmctl.msr.types import Item
from llmctl.registry import Registry
from llmctl.runs import Recipe

Factory = Callable[[Sequence[Item], Any, int], Baseline]


def _needs_nothing() -> None:
    """The requirement check of a baseline that needs no further package."""


@dataclass(frozen=True)
class BaselineEntry:
    """One baseline as the registry holds it."""

    name: str
    """Its name in `baselines.names`, in tables and in files."""
    description: str
    """One line on how it scores items."""
    factory: Factory
    """Gives an unfitted baseline from the items, its settings (None where it has none) and a seed."""
    settings: type[Recipe] | None = None
    """The class of its section `baselines.<name>`; None where it has no settings."""
    check: Callable[[], None] = _needs_nothing
    """Raises a UserError where a package that the baseline needs is not installed."""


_BUILT_IN = {
    "random": "llmctl.msr.baselines.random:ENTRY",
    "popularity": "llmctl.msr.baselines.popularity:ENTRY",
    "item-knn": "llmctl.msr.baselines.item_knn:ENTRY",
    "text-knn": "llmctl.msr.baselines.text_knn:ENTRY",
    "gru4rec": "llmctl.msr.baselines.sequence:GRU4REC",
    "sasrec": "llmctl.msr.baselines.sequence:SASREC",
}
BUILT_IN = tuple(_BUILT_IN)  # what a recipe that names no baselines is compared with
BASELINES: Registry[BaselineEntry] = Registry("baseline", "llmctl.baselines", _BUILT_IN)
