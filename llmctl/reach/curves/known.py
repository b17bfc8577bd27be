"""Curves to draw beside one's own: published ones by name, result files of Magic Words, other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import Pair, Point, epsilon_curve
from llmctl.reach.curves.published import read_published
from llmctl.runs.files import read_json
from llmctl.runs.stats import wilson

_KS = (0, 1, 2, 3, 4, 6, 8, 10)
# Per cent of pairs solved within k, recomputed from the result files that came with arXiv 2310.04444.
_PUBLISHED: dict[str, tuple[int, tuple[float, ...]]] = {
    "falcon-7b": (5000, (42.08, 61.70, 76.22, 82.16, 90.22, 94.36, 96.24, 97.16)),
    "llama-7b": (5000, (40.34, 61.42, 72.36, 76.30, 90.88, 95.00, 97.30, 98.64)),
    "falcon-40b": (500, (43.80, 69.20, 82.00, 86.20, 90.40, 94.00, 95.60, 97.00)),
    "gpt2": (5000, (24.68, 36.64, 48.74, 58.24, 87.70, 96.20, 98.96, 99.68)),
    "falcon-7b/top75": (1875, (1.33, 9.23, 25.28, 36.96, 54.99, 73.01, 83.15, 89.39)),
    "llama-7b/top75": (1875, (1.33, 16.37, 32.32, 39.04, 56.00, 68.11, 78.45, 85.49)),
    "falcon-40b/top75": (281, (1.42, 16.01, 35.23, 45.55, 56.58, 67.26, 76.87, 84.70)),
    "falcon-7b/ranks": (616, (0.49, 0.49, 3.08, 7.47, 15.10, 28.57, 37.82, 46.43)),
    "falcon-7b/vocabulary": (1256, (0.0, 0.08, 1.75, 5.18, 14.25, 27.79, 39.57, 51.27)),
    "llama-7b/vocabulary": (1256, (0.0, 0.0, 1.19, 3.11, 21.82, 41.08, 55.89, 65.21)),
}


@dataclass(frozen=True)
class KnownCurve:
    """Epsilon by k of something measured elsewhere."""

    name: str
    ks: tuple[int, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    n: int
    clusters: int | None  # None: not known, so the interval takes pairs for independent

    @classmethod
    def from_points(cls, name: str, points: Sequence[Point]) -> KnownCurve:
        """The curve through points that were computed here."""
        return cls(
            name,
            tuple(point.at for point in points),
            tuple(point.value for point in points),
            tuple(point.low for point in points),
            tuple(point.high for point in points),
            points[0].n,
            points[0].clusters,
        )

    def at(self, k: int) -> float | None:
        """Epsilon at one k, where it was measured."""
        return self.values[self.ks.index(k)] if k in self.ks else None


def published_names() -> tuple[str, ...]:
    """Names that `known_curve` knows; without an ending they are of true next tokens."""
    return tuple(_PUBLISHED)


def known_curve(source: str) -> KnownCurve:
    """A curve by published name, CSV file or folder of CSV files, or folder of a curve's run.

    Raises:
        UserError: It is none of these.
    """
    if source in _PUBLISHED:
        return _published(source)
    path = Path(source)
    if (path / "metrics.json").is_file():
        return _of_run(path)
    if path.suffix == ".csv" or (path.is_dir() and any(path.glob("*.csv"))):
        return curve_of_pairs(path.stem, read_published(path))
    raise UserError(
        f"beside holds {source!r}, which is no published curve ({', '.join(_PUBLISHED)}), no CSV of "
        "Magic Words and no folder of a finished curve"
    )


def curve_of_pairs(name: str, pairs: Sequence[Pair]) -> KnownCurve:
    """The curve of pairs that were read from somewhere."""
    return KnownCurve.from_points(name, epsilon_curve(pairs))


def _published(name: str) -> KnownCurve:
    n, solved = _PUBLISHED[name]
    bounds = [wilson(n - round(n * rate / 100), n).bounds() for rate in solved]
    return KnownCurve(
        f"{name} (published)",
        _KS,
        tuple(1 - rate / 100 for rate in solved),
        tuple(low for low, _ in bounds),
        tuple(high for _, high in bounds),
        n,
        None,
    )


def _of_run(folder: Path) -> KnownCurve:
    metrics = read_json(folder / "metrics.json")
    epsilon: Mapping[str, Mapping[str, float]] = metrics.get("epsilon") or {}
    if not epsilon:
        raise UserError(f"{folder} is no finished curve: its metrics.json holds no epsilon")
    rows = sorted((int(k), point) for k, point in epsilon.items())
    return KnownCurve(
        folder.name,
        tuple(k for k, _ in rows),
        tuple(point["value"] for _, point in rows),
        tuple(point["low"] for _, point in rows),
        tuple(point["high"] for _, point in rows),
        int(rows[0][1]["n"]),
        int(rows[0][1]["clusters"]),
    )
