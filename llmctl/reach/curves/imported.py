"""Curves recomputed from published result files, as a table, a plot and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmctl.reach.curves.epsilon import Point, epsilon_curve
from llmctl.reach.curves.known import KnownCurve, known_curve
from llmctl.reach.curves.plots import draw_curves
from llmctl.reach.curves.published import read_published
from llmctl.runs import Recipe, Run, Section, Table, save_figure, write_report


class ImportRecipe(Recipe):
    """Which files, and what to draw beside them."""

    kind: ClassVar[str] = "reach-import"

    paths: tuple[Path, ...]
    """Result CSVs, or folders of them (the shards of one experiment)."""
    beside: tuple[str, ...] = ()
    """Curves to draw beside, as in a curve's recipe."""


@dataclass(frozen=True)
class ImportedCurve:
    """One experiment."""

    name: str
    points: tuple[Point, ...]
    pairs: int
    states: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON object like a curve's `metrics.json`."""
        epsilon = {str(point.at): point.to_dict() for point in self.points}
        return {"name": self.name, "epsilon": epsilon, "pairs": self.pairs, "states": self.states}

    def known(self) -> KnownCurve:
        """The curve as plots draw it."""
        return KnownCurve.from_points(self.name, self.points)


def import_curves(recipe: ImportRecipe) -> dict[str, ImportedCurve]:
    """The curve of every path, by a name of its own.

    Raises:
        UserError: A file is missing, is not in the published format, or shards disagree; or `beside`
            holds no curve.
    """
    found: dict[str, ImportedCurve] = {}
    for path in recipe.paths:
        pairs = read_published(path)
        points = tuple(epsilon_curve(pairs))
        name = path.stem if path.stem not in found else str(path)
        found[name] = ImportedCurve(name, points, len(pairs), points[0].clusters)
    for source in recipe.beside:
        known_curve(source)
    return found


def write_import(run: Run, recipe: ImportRecipe, found: Mapping[str, ImportedCurve]) -> None:
    """Write `metrics.json` and the report."""
    curves = [curve.known() for curve in found.values()] + [known_curve(source) for source in recipe.beside]
    figure = save_figure(
        draw_curves(curves), run, "epsilon", "Epsilon by control length, 95 % intervals clustered by state."
    )
    write_report(run, "Imported curves", [Section("Epsilon by k", [figure, imported_table(found)])])
    run.write_metrics({"curves": {name: curve.to_dict() for name, curve in found.items()}})


def imported_table(found: Mapping[str, ImportedCurve]) -> Table:
    """A row for every curve and k."""
    rows = [
        [
            name,
            point.at,
            f"{100 * (1 - point.value):.2f}",
            f"{point.value:.4f} [{point.low:.4f}, {point.high:.4f}]",
            f"[{point.wilson_low:.4f}, {point.wilson_high:.4f}]",
            ", ".join(f"{method} {count}" for method, count in point.methods.items())
            + (" (switch of method)" if point.is_switch else ""),
        ]
        for name, curve in found.items()
        for point in curve.points
    ]
    columns = ["curve", "k", "% solved", "epsilon, clustered by state", "Wilson", "newly reached by"]
    sizes = "; ".join(f"{name}: {c.pairs} pairs at {c.states} states" for name, c in found.items())
    return Table(columns, rows, sizes)
