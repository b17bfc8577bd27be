"""The search methods: what one must provide, and where all of them are found by name.

To add a method, write one file with a function that searches at one control length and a `SearchMethod`
that describes it, and name that in `METHODS`, or in the entry point group `llmctl.methods` of a package
of your own. Nothing else has to change: phases, recipes, schedules and plots read this registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.errors import UserError
from llmctl.registry import Registry

if TYPE_CHECKING:
    from llmctl.reach.result import Step
    from llmctl.reach.search.config import Phase
    from llmctl.reach.search.state import Search


def planned_candidates(search: Search, phase: Phase) -> int:
    """Controls that a phase of a method with steps of equal size scores; 0 per step is every token once."""
    return (phase.candidates or len(search.tokens)) * phase.steps


OTHER_COLOUR = "#444444"  # for methods that this installation does not have, as in files of others
OTHER_MARKER = "+"


@dataclass(frozen=True)
class SearchMethod:
    """One way to look for a control of a given length."""

    run: Callable[[Search, Phase], Iterator[Step]]
    """Searches at length `phase.k`: scores controls with `search.evaluate(controls, phase.method)`, which
    keeps the best of each length, and yields `search.step(phase.method, k)` now and then."""
    label: str
    """A few words for menus."""
    summary: str
    """What the method does, in one sentence."""
    sizes: Callable[[int, int], Mapping[str, int]]
    """Maps (candidates, steps) of a user to fields of `Phase`, so that every method scores about
    candidates * steps controls at each length."""
    reads: tuple[str, ...] = ("candidates", "steps", "stop_early")
    """Fields of `Phase`, besides `method` and `k`, that `run` reads."""
    max_k: int | None = None
    """The longest control that the method can look for; None is no limit."""
    needs_candidates: bool = False
    """Whether a phase must say how many controls to score; else 0 stands for all of them."""
    planned: Callable[[Search, Phase], int] = planned_candidates
    """How many controls a phase scores if it finds no witness. `run` scores that many; only where fewer
    controls exist, or a filter refuses them, may it score fewer."""
    colour: str = OTHER_COLOUR
    """In plots, as "#rrggbb"."""
    marker: str = OTHER_MARKER
    """In plots, a marker of matplotlib."""


METHODS: Registry[SearchMethod] = Registry(
    "search method",
    "llmctl.methods",
    {
        name: f"llmctl.reach.search.methods.{name}:METHOD"
        for name in ("scan", "greedy", "copying", "gcg", "beam", "random")
    },
)


@dataclass(frozen=True)
class MethodStyle:
    """How a plot draws what a method found."""

    colour: str
    marker: str


_BASE = MethodStyle("#bbbbbb", "o")  # pairs that the state alone solves


def style_of(name: str) -> MethodStyle:
    """The style of a method by its name in a result; methods that are not installed get a neutral one."""
    if name == "base":
        return _BASE
    try:
        method = METHODS[name]
    except UserError:
        return MethodStyle(OTHER_COLOUR, OTHER_MARKER)
    return MethodStyle(method.colour, method.marker)
