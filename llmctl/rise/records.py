"""The records of a RISE run: what its journals hold, one JSON object per problem.

Each record has `to_dict`, which gives the plain values that a journal line stores, and `from_dict`, which
reads them back. Keys that a journal leaves out have the default of their field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from llmctl.sampling.types import SampleStatus


@dataclass(frozen=True)
class Turn:
    """One response to a problem, and how the task judged it."""

    text: str
    reward: float
    is_correct: bool
    answer: str | None
    """The answer as read from the response; votes are counted by it. None where none can be read."""
    message: str
    """The message that follows the response."""
    tokens: int
    logprob: float | None
    """Natural log-probability, summed over the response's tokens; None where the engine does not tell it."""
    is_repeat: bool = False
    """Whether an earlier response of the episode has the same text."""
    is_degenerate: bool = False
    """Whether the response is one word over and over, or holds an absurdly long word."""
    error: str | None = None
    """Why the engine gave no response; None where it gave one."""
    status: SampleStatus = field(default="ok", compare=False)
    """What became of the sample, a `SampleStatus`. Evaluation jobs store it, journals do not."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal; flags only where they are set."""
        plain = dict(vars(self))
        del plain["status"]
        plain["logprob"] = None if self.logprob is None else round(self.logprob, 4)
        for flag in ("is_repeat", "is_degenerate", "error"):
            if not plain[flag]:
                del plain[flag]
        return plain

    def to_brief_dict(self) -> dict[str, Any]:
        """The same without the message and the log-probability, as an evaluation stores it."""
        plain = self.to_dict()
        del plain["message"], plain["logprob"]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` or `to_brief_dict` wrote."""
        return cls(
            text=plain["text"],
            reward=plain["reward"],
            is_correct=plain["is_correct"],
            answer=plain["answer"],
            message=plain.get("message", ""),
            tokens=plain["tokens"],
            logprob=plain.get("logprob"),
            is_repeat=plain.get("is_repeat", False),
            is_degenerate=plain.get("is_degenerate", False),
            error=plain.get("error"),
        )


@dataclass(frozen=True)
class Improved:
    """The improved response of a state, which the model is trained on."""

    text: str
    reward: float
    source: str
    """Where it comes from: self, teacher or reference."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(plain["text"], plain["reward"], plain["source"])


@dataclass(frozen=True)
class State:
    """A state of a collected episode, the samples drawn at it, and the improved response."""

    turn: int
    """Number of the turn that the state comes before, from 1."""
    rewards: tuple[float, ...]
    """Rewards of the policy's N samples, those that the engine failed on left out."""
    repeats: int
    """Number of candidates that repeat an earlier response of the episode."""
    degenerate: int
    """Number of degenerate candidates."""
    improved: Improved | None
    """None where every candidate was dropped."""
    errors: int = 0
    """Number of samples that the engine failed on."""
    error: str | None = None
    """The message of the first failure."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal; failures of the engine only where there are any."""
        plain = {
            "turn": self.turn,
            "rewards": list(self.rewards),
            "repeats": self.repeats,
            "degenerate": self.degenerate,
            "improved": None if self.improved is None else self.improved.to_dict(),
        }
        return plain | ({"errors": self.errors, "error": self.error} if self.errors else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        improved = plain["improved"]
        return cls(
            turn=plain["turn"],
            rewards=tuple(plain["rewards"]),
            repeats=plain["repeats"],
            degenerate=plain["degenerate"],
            improved=None if improved is None else Improved.from_dict(improved),
            errors=plain.get("errors", 0),
            error=plain.get("error"),
        )


@dataclass(frozen=True)
class Episode:
    """A collected episode of one problem."""

    problem: str
    """Id of the problem."""
    turns: tuple[Turn, ...]
    states: tuple[State, ...]
    """One state before each turn."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal."""
        return {
            "problem": self.problem,
            "turns": [turn.to_dict() for turn in self.turns],
            "states": [state.to_dict() for state in self.states],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(
            plain["problem"],
            tuple(map(Turn.from_dict, plain["turns"])),
            tuple(map(State.from_dict, plain["states"])),
        )


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one problem: P parallel samples, and R turns that start from the first of them."""

    problem: str
    """Id of the problem."""
    gold: str
    """The reference answer."""
    parallel: tuple[Turn, ...]
    turns: tuple[Turn, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal, without messages and log-probabilities."""
        return {
            "problem": self.problem,
            "gold": self.gold,
            "parallel": [turn.to_brief_dict() for turn in self.parallel],
            "turns": [turn.to_brief_dict() for turn in self.turns],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(
            plain["problem"],
            plain["gold"],
            tuple(map(Turn.from_dict, plain["parallel"])),
            tuple(map(Turn.from_dict, plain["turns"])),
        )
