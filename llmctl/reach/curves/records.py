"""One searched pair of a curve: the result of its search, and what the curve adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl.reach.curves.epsilon import Pair
from llmctl.reach.result import Result

_OWN = ("control_tokens", "rechecks")  # keys that only a curve's record has


@dataclass(frozen=True)
class CurvePair:
    """A line of `pairs.jsonl`."""

    result: Result
    control_tokens: tuple[str, ...] = ()
    """Each token of the control as text."""
    rechecks: Mapping[str, bool] = field(default_factory=dict)
    """By place where the witness was checked again: whether it holds there."""

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> CurvePair:
        """From a record of the journal, with its `rechecks` where there are any."""
        result = Result.from_dict({key: value for key, value in entry.items() if key not in _OWN})
        return cls(result, tuple(entry.get("control_tokens", ())), dict(entry.get("rechecks") or {}))

    @property
    def base_loss(self) -> float | None:
        """Loss of the target after the state alone, nats; None where the model gave NaN."""
        return _finite(self.result.base_loss)

    @property
    def loss(self) -> float | None:
        """Loss with the control, nats; None where the model gave NaN."""
        return _finite(self.result.loss)

    def pair(self) -> Pair:
        """What the curve itself needs of it."""
        return Pair.from_result(self.result.to_dict(with_path=False))


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
