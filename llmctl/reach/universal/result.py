"""What the search for one control of many pairs returns: frozen records that serialise to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class UniversalStep:
    """Where a search stands after a step; all that the next step depends on."""

    method: str
    step: int  # from 1; 0 is the start
    k: int  # length that was searched
    control_ids: tuple[int, ...]  # the best control so far, of any length
    loss: float | None  # its mean over the judging pairs, nats per target token; None before there is one
    matches: int  # judging pairs whose answer it emits
    current_ids: tuple[int, ...]  # the best of the length searched: where the next step starts
    current_loss: float | None
    at: int  # steps at this length so far
    stale: int  # of them, those since the last better control
    batch_loss: float | None  # least loss of a candidate on the step's minibatch
    forwards: int = 0  # sequences scored since the start
    forward_tokens: int = 0  # tokens that went through the model forward
    backward_tokens: int = 0  # tokens that went through it backward

    @property
    def tokens(self) -> int:
        """Tokens that went through the model either way."""
        return self.forward_tokens + self.backward_tokens

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"control_ids": list(self.control_ids), "current_ids": list(self.current_ids)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> UniversalStep:
        """Read back what `to_dict` wrote, or the line of a journal that holds it."""
        content = {name: value for name, value in entry.items() if name != "key"}
        ids = {name: tuple(entry[name]) for name in ("control_ids", "current_ids")}
        return cls(**{**content, **ids})


@dataclass(frozen=True)
class PairScores:
    """How one control, or the mean of several, does on pairs: one number per pair, in their order."""

    losses: tuple[float, ...]  # mean cross-entropy over the answer's tokens, nats
    matches: tuple[float, ...]  # whether greedy decoding emits the answer token for token; a share of several

    @property
    def loss(self) -> float:
        """The mean over pairs, each of which counts alike."""
        return sum(self.losses) / len(self.losses)

    @property
    def match_rate(self) -> float:
        """The share of pairs whose answer is emitted."""
        return sum(self.matches) / len(self.matches)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {"losses": list(self.losses), "matches": list(self.matches)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> PairScores:
        """Read back what `to_dict` wrote."""
        return cls(tuple(entry["losses"]), tuple(entry["matches"]))


@dataclass(frozen=True)
class Optimized:
    """One control for a whole data set, and how it does on pairs that played no part in finding it."""

    control_ids: tuple[int, ...]
    control_text: str
    method: str
    train: PairScores
    held_out: PairScores | None  # None where no held-out pairs were given
    base_train: PairScores  # without a control
    base_held_out: PairScores | None
    forwards: int  # sequences scored by the search
    forward_tokens: int
    backward_tokens: int
    seed: int = 0
    path: tuple[UniversalStep, ...] = field(default=(), repr=False)

    @property
    def k(self) -> int:
        """Tokens of the control."""
        return len(self.control_ids)

    def to_dict(self, *, with_path: bool = True) -> dict[str, Any]:
        """A JSON object; `path` holds the steps of the search."""
        entry = {
            key: value.to_dict() if isinstance(value, PairScores) else value
            for key, value in vars(self).items()
        }
        entry |= {"control_ids": list(self.control_ids), "k": self.k}
        entry.pop("path")
        if with_path:
            entry["path"] = [step.to_dict() for step in self.path]
        return entry
