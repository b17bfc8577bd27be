"""What a search may spend: phases, one after the other, each a method at one control length."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.reach.search.methods.registry import METHODS


@dataclass(frozen=True)
class Phase:
    """One method at one control length."""

    method: str
    """A name in `llmctl.reach.search.methods.registry.METHODS`, such as "gcg"."""
    k: int
    """Tokens of the control."""
    candidates: int = 0
    """Controls scored per step; for scan, greedy and beam, 0 means every allowed token."""
    steps: int = 1
    """Number of steps at most; a step of GCG is one gradient and its candidates."""
    top_k: int = 128
    """Number of tokens that the gradient proposes per position (GCG). A starting point that is used again
    proposes twice, three times ... as many."""
    swaps: int = 1
    """Number of positions changed at once at most (GCG); 1 is the published method."""
    buffer: int = 1
    """Number of controls kept as starting points, the best first (GCG)."""
    width: int = 8
    """Number of controls kept from one length to the next (beam)."""
    stop_early: bool = True
    """Stop at the first checked hit. The published code does not."""
    keep_best: bool = True
    """Go on from the best control so far, and restart where nothing gets better, until the budget is spent
    (GCG). The published code goes on from the last step's control."""
    patience: int = 6
    """Number of steps without a better control before the search restarts (GCG with `keep_best`)."""
    uniform: float = 0.0
    """Share of the controls that is drawn uniformly at the end of the phase (GCG with `keep_best`). Draws
    without a hit bound the density of hits."""
    ordered: bool = True
    """Try first what the gradient favours (scan, greedy), or take candidates in its order instead of at
    random (GCG)."""

    def __post_init__(self) -> None:
        method = METHODS[self.method]
        if self.k < 1:
            raise UserError(f"k is {self.k}, but a phase needs a control of at least 1 token: give k >= 1")
        if method.max_k is not None and self.k > method.max_k:
            raise UserError(
                f"method {self.method} has k = {self.k}, but it exhausts k = {method.max_k} only: "
                "use another method, such as greedy or beam"
            )
        if not 0 <= self.uniform <= 1:
            raise UserError(f"uniform is {self.uniform}, but a share from 0 to 1 is needed")
        for name in ("steps", "top_k", "swaps", "buffer", "width", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but a phase needs at least 1")
        if self.candidates < 0 or (self.candidates == 0 and method.needs_candidates):
            raise UserError(f"candidates is {self.candidates}, but {self.method} needs at least 1 per step")


@dataclass(frozen=True)
class Schedule:
    """Phases in order, and what happens around them."""

    name: str
    """Recorded in the result."""
    phases: tuple[Phase, ...]
    """Run in this order until one finds a witness."""
    shorten: bool = True
    """After a hit, drop tokens one by one as long as the target is still emitted."""
    certify: bool = False
    """If only k = 1 was asked for and nothing was found, finish the scan for a certificate."""
    seed: int = 0
    """Seed for everything that the search draws."""

    @property
    def max_k(self) -> int:
        """The longest control that any phase tries."""
        return max((phase.k for phase in self.phases), default=0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"phases": [asdict(phase) for phase in self.phases]}
