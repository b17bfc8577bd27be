"""What a search may spend: phases, one after the other, each a method at one control length."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmctl.errors import UserError

Method = Literal["scan", "greedy", "gcg", "beam", "random"]
METHODS = ("scan", "greedy", "gcg", "beam", "random")


@dataclass(frozen=True)
class Phase:
    """One method at one control length."""

    method: Method
    k: int
    candidates: int = 0
    """Controls scored a step; 0 means every allowed token (scan, greedy, beam)."""
    steps: int = 1
    """Steps at most; a step of GCG is one gradient and its candidates."""
    top_k: int = 128
    """Tokens a position that the gradient proposes (GCG)."""
    swaps: int = 1
    """Positions changed at once at most (GCG); 1 is the published method."""
    buffer: int = 1
    """Controls kept as starting points, the best first (GCG)."""
    width: int = 8
    """Controls kept from one length to the next (beam)."""
    stop_early: bool = True
    """Stop at the first checked hit. The published code does not."""
    keep_best: bool = True
    """Go on from the best control so far (GCG). The published code goes on from the last step's."""
    ordered: bool = True
    """Try what the gradient favours first (scan, greedy), or take it in order (GCG) and not by chance."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method is {self.method!r}, but it must be one of {', '.join(METHODS)}")
        if self.k < 1:
            raise UserError(f"k is {self.k}, but a phase needs a control of at least 1 token: give k >= 1")
        if self.method == "scan" and self.k != 1:
            raise UserError(f"method scan has k = {self.k}, but it exhausts k = 1 only: use greedy or beam")
        for name in ("steps", "top_k", "swaps", "buffer", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but a phase needs at least 1")
        if self.candidates < 0 or (self.candidates == 0 and self.method in ("gcg", "random")):
            raise UserError(f"candidates is {self.candidates}, but {self.method} needs at least 1 a step")


@dataclass(frozen=True)
class Schedule:
    """Phases in order, and what happens around them."""

    name: str
    phases: tuple[Phase, ...]
    shorten: bool = True
    """After a hit, drop tokens one by one for as long as the target is still emitted."""
    certify: bool = False
    """Where k = 1 is all that was asked and nothing was found, finish the scan for a certificate."""
    seed: int = 0

    @property
    def max_k(self) -> int:
        """The longest control that any phase tries."""
        return max((phase.k for phase in self.phases), default=0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"phases": [asdict(phase) for phase in self.phases]}
