"""What a comparison of curves holds: frozen records that serialise to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.runs import Estimate


@dataclass(frozen=True)
class CurveDifference:
    """One curve against the reference, on the same pairs."""

    epsilon: Mapping[str, Estimate | None]
    """By k: epsilon minus the reference's; None where all pairs share one state."""
    gained: int
    """Pairs that this curve reached at the longest k and the reference did not."""
    lost: int
    """Pairs that the reference reached at the longest k and this curve did not."""
    k: Estimate | None
    """The mean difference in k where both reached; None where those pairs share one state."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "epsilon": {k: None if one is None else one.to_dict() for k, one in self.epsilon.items()},
            "gained": self.gained,
            "lost": self.lost,
            "k": None if self.k is None else self.k.to_dict(),
        }


@dataclass(frozen=True)
class CurveComparison:
    """Several curves on the same pairs, each against the first."""

    reference: str
    pairs: int
    states: int
    curves: Mapping[str, Mapping[str, Estimate]]
    """By name, epsilon by k."""
    forward_tokens: Mapping[str, int]
    """By name, the tokens that the search of all pairs took."""
    differences: Mapping[str, CurveDifference]
    """By name, the reference aside."""
    recipes: Mapping[str, list[str]]
    """By name, in words, the settings in which the search differs from that of the reference."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            **vars(self),
            "curves": {
                name: {k: point.to_dict() for k, point in curve.items()}
                for name, curve in self.curves.items()
            },
            "differences": {name: one.to_dict() for name, one in self.differences.items()},
        }
