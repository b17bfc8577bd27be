"""What jobs tell the page: one frozen record per event, whose fields are the keys of the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

State = Literal["waiting", "running", "paused", "done", "stopped", "failed"]
Token = Mapping[str, Any]  # id and text


@dataclass(frozen=True)
class Event:
    """Something that happened in a job."""

    event: ClassVar[str]

    def content(self) -> dict[str, Any]:
        """The fields, as the page reads them."""
        return dict(vars(self))


@dataclass(frozen=True)
class Message:
    """An event with the job that it belongs to."""

    kind: str | None
    """The kind of the job: search, set or converse."""
    job: str | None
    """The name that the page gave the job."""
    event: Event

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are sent."""
        return {"kind": self.kind, "job": self.job, "event": self.event.event, **self.event.content()}


@dataclass(frozen=True)
class StateChanged(Event):
    """A job waits, runs, is paused or has ended."""

    event = "state"
    state: State
    place: int | None = None
    """Place in the line, from 1, while it waits."""
    error: str | None = None
    """Why it failed."""

    def content(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Refused(Event):
    """A request of the page cannot be done."""

    event = "refused"
    error: str


@dataclass(frozen=True)
class TargetBegan(Event):
    """The search for one target begins."""

    event = "begin"
    place: int
    """Index of the target in the request."""
    target: Sequence[Token]
    base_loss: float | None
    """Loss of the target without a control, in nats."""
    base_rank: int


@dataclass(frozen=True)
class SearchStepped(Event):
    """A search has made a step; `best` comes with the first step and with better ones."""

    event = "step"
    place: int
    method: str
    k: int
    loss: float | None
    is_hit: bool
    forwards: int
    forward_tokens: int
    best: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        """The fields; `best` only where it is set."""
        fields = dict(vars(self))
        if self.best is None:
            del fields["best"]
        return fields


@dataclass(frozen=True)
class SearchProgressed(Event):
    """How far a search is."""

    event = "progress"
    place: int
    forwards: int
    forward_tokens: int
    of: int
    """Controls that it scores at most."""
    seconds: float
    left: float | None
    """Seconds left at most."""


@dataclass(frozen=True)
class TargetEnded(Event):
    """The search for one target has ended."""

    event = "result"
    place: int
    result: Mapping[str, Any]
    note: str
    """Why it ended early; empty where it did not."""
    best: Mapping[str, Any] | None
    seconds: float


@dataclass(frozen=True)
class SetBegan(Event):
    """The exploration of a reachable set begins."""

    event = "begin"
    allowed: int
    """Tokens that a control may hold."""
    of: int
    """Controls that will be scored."""
    vocabulary: int


@dataclass(frozen=True)
class TokensReached(Event):
    """Tokens were reached; each with its control, base rank and base loss."""

    event = "reached"
    tokens: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SetProgressed(Event):
    """How far the exploration of a set is."""

    event = "progress"
    reached: int
    forwards: int
    forward_tokens: int
    of: int
    seconds: float
    left: float | None


@dataclass(frozen=True)
class SetEnded(Event):
    """A set was explored."""

    event = "end"
    reached: int
    k: int
    exact_k: int
    """The set is exact up to this number of control tokens."""
    allowed: int


@dataclass(frozen=True)
class ChatBegan(Event):
    """A conversation begins."""

    event = "begin"
    sides: Sequence[str]
    """The models that answer: tuned, base."""
    retry: str
    """The message that follows each answer."""


@dataclass(frozen=True)
class ReplyGrew(Event):
    """A piece of a reply."""

    event = "text"
    side: str
    turn: int
    piece: str


@dataclass(frozen=True)
class ReplyEnded(Event):
    """A whole reply, judged where there is a reference answer."""

    event = "turn"
    side: str
    turn: int
    text: str
    tokens: int
    answer: str | None
    is_correct: bool | None
    said: str
    """The message of the task about it."""
