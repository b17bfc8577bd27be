"""What a search returns: frozen records that serialise to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["reached", "unreachable", "unknown"]


@dataclass(frozen=True)
class Step:
    """One step of a search: what was tried last and what it has cost so far."""

    method: str
    k: int  # length of the controls that were tried
    control_ids: tuple[int, ...]  # the best control of this length so far
    loss: float  # of that control: mean cross-entropy over the target tokens, in nats
    is_hit: bool  # it emits the target, checked alone by greedy decoding
    forwards: int  # sequences scored since the start
    forward_tokens: int  # tokens that went through the model since the start

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; a loss that is not a number becomes null."""
        return {name: _to_json(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Result:
    """The answer to one problem.

    `reached` has a witness that was re-scored alone, unbatched, by greedy decoding. `unreachable` means
    that every allowed control of at most `certified_k` tokens was tried (never more than one token) and
    that the search was not asked for longer ones. `unknown` means not found at this budget.
    """

    verdict: Verdict
    k: int | None  # length of the witness; None where there is none
    control_ids: tuple[int, ...]  # the witness, or the best control found
    control_text: str
    prompt_text: str  # the whole prompt as text, control included
    method: str  # the method that found the control ("base" for k = 0)
    base_rank: int  # rank of the first target token after the state alone; 0 is the argmax
    base_loss: float  # mean cross-entropy over the target tokens after the state alone, in nats
    loss: float  # with the control
    forwards: int  # sequences scored
    forward_tokens: int  # tokens that went through the model forward
    backward_tokens: int  # tokens that went through it backward (gradient steps)
    roundtrips: bool  # the prompt, decoded and encoded again, still emits the target
    margin: float = math.nan
    """The target's logit minus the best other with the control, the least over the target tokens; below 0
    where the target is not emitted, NaN in older records."""
    planned: Mapping[int, int] = field(default_factory=dict, hash=False)
    """By control length: controls that the schedule scores if no witness is found; empty in older records
    and where the state alone suffices."""
    spent: Mapping[int, int] = field(default_factory=dict, hash=False)
    """By control length: controls that the phases of the schedule scored."""
    uniform_draws: Mapping[int, int] = field(default_factory=dict, hash=False)
    """By control length: how many of the controls were drawn uniformly from all allowed ones."""
    density_bound: Mapping[int, float] = field(default_factory=dict, hash=False)
    """By control length at which no witness was found: at most this share of all allowed controls reaches
    the target, at 95 % confidence: 3 / `uniform_draws`."""
    certified_k: int | None = None  # no allowed control of at most this many tokens reaches the target
    state_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()
    state_text: str = ""
    target_text: str = ""
    position: str = "before"
    schedule: str = ""
    seed: int = 0
    prompt_ids: tuple[int, ...] = ()  # all that the model reads, template included; () in older records
    error: str = ""  # why the search stopped early (NaN logits), else empty
    id: str = ""
    path: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def is_reached(self) -> bool:
        """Whether a witness was found and checked."""
        return self.verdict == "reached"

    def to_dict(self, *, with_path: bool = True) -> dict[str, Any]:
        """A JSON object; `path` holds the steps of the search, and a loss that is not a number is null."""
        entry = {key: _to_json(value) for key, value in vars(self).items() if key != "path"}
        if with_path:
            entry["path"] = [step.to_dict() for step in self.path]
        return entry

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Result:
        """Read back what `to_dict` wrote."""
        fields: dict[str, Any] = {key: _from_json(key, value) for key, value in entry.items()}
        fields["path"] = tuple(
            Step(**{key: _from_json(key, value) for key, value in step.items()})
            for step in entry.get("path", ())
        )
        return cls(**fields)


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}  # as JSON has them
    return list(value) if isinstance(value, tuple) else value


def _from_json(key: str, value: Any) -> Any:
    if value is None and key in ("base_loss", "loss", "margin"):
        return math.nan
    if isinstance(value, Mapping):
        return {int(k): entry for k, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value
