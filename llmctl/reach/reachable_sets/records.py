"""A reachable set, how it grew, and how to explore it: frozen records that serialise to JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmctl.errors import UserError

Strategy = Literal["push", "pull", "alternate", "random"]
STRATEGIES = ("push", "pull", "alternate", "random")


@dataclass(frozen=True)
class Reached:
    """A token that some control makes the model emit."""

    token: int
    text: str
    control_ids: tuple[int, ...]  # a witness, checked alone where it was found by exploration
    base_rank: int  # of the token after the state alone; 0 is the argmax
    base_loss: float  # nats
    loss: float  # with the witness, nats


@dataclass(frozen=True)
class Growth:
    """How far an exploration has come."""

    reached: int  # tokens
    forwards: int
    forward_tokens: int


@dataclass(frozen=True)
class ReachableSet:
    """R_k(x0), or what is known of it."""

    k: int
    reached: tuple[Reached, ...]  # by base rank
    is_exact: bool  # k = 1 by exhaustion; for k > 1 more tokens may be reachable
    exact_k: int  # up to this length the set is exact
    allowed: int  # tokens that a control may hold
    state_ids: tuple[int, ...]
    position: str
    strategy: str
    seed: int
    forwards: int
    forward_tokens: int
    growth: tuple[Growth, ...]

    def tokens(self, k: int | None = None) -> frozenset[int]:
        """The reached tokens, those with a witness of at most k tokens."""
        return frozenset(r.token for r in self.reached if k is None or len(r.control_ids) <= k)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        entry = asdict(self)
        entry["reached"] = [asdict(r) | {"control_ids": list(r.control_ids)} for r in self.reached]
        return entry | {"state_ids": list(self.state_ids), "growth": [asdict(g) for g in self.growth]}


@dataclass(frozen=True)
class Exploration:
    """How to explore beyond one token."""

    forwards: int = 4096
    """Controls scored beyond the scan of k = 1."""
    strategy: Strategy = "alternate"
    """Score parents by "push", by "pull", by each in turn, or not at all ("random")."""
    sample: int = 128
    """Tokens by which a parent is lengthened at a time."""
    pool: int = 128
    """Controls kept as parents."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"strategy is {self.strategy!r}, but it must be one of {', '.join(STRATEGIES)}")
        for name in ("sample", "pool"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but at least 1 is needed")
