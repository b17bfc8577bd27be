"""The names of the metrics of an evaluation, which say how many samples and turns were run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ONE_SAMPLE = "m1_t1"
# The names of every evaluation in files of earlier versions, whatever P and R were.
_OLD = {"parallel_vote": "m5_t1", "turn_vote": "m1_t5", "any_turn": "p1_t5"}


@dataclass(frozen=True)
class MetricNames:
    """The names for P parallel samples and R turns; a role is the name of a property."""

    parallel: int = 5
    turns: int = 5

    @property
    def parallel_vote(self) -> str:
        """The majority vote of the P parallel samples."""
        return f"m{self.parallel}_t1"

    @property
    def turn_vote(self) -> str:
        """The majority vote over the R turns, without an oracle."""
        return f"m1_t{self.turns}"

    @property
    def any_turn(self) -> str:
        """Whether any of the R turns is right: an oracle stops at the first right answer."""
        return f"p1_t{self.turns}"

    @property
    def any_sample(self) -> str:
        """Whether any of the P parallel samples is right."""
        return f"pass_{self.parallel}"

    def find(self, metrics: Mapping[str, Any], role: str) -> Any:
        """The metric of a role, also where a file has it under the name of earlier versions.

        Raises:
            KeyError: The metric is under neither name.
        """
        name = getattr(self, role)
        return metrics[name] if name in metrics else metrics[_OLD.get(role, name)]
