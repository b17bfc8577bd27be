"""Collection: on-policy episodes, and an improved response at every state (RISE, section 4.1).

The N samples at a state serve twice: the first is the policy's own next attempt, the best of them is
the improved response of self-distillation. Where none is right, a teacher or the task's reference
solution may step in, as the recipe says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.rise.recipe import CollectSettings
from llmctl.rise.rollout import Player
from llmctl.rise.turns import Attempt, judge
from llmctl.sampling import Completion
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem


@dataclass
class _Episode:
    """An episode while it is being played."""

    problem: Problem
    attempts: list[Attempt] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        last = self.attempts[-1] if self.attempts else None
        return last is not None and (last.is_correct or last.is_degenerate or last.error is not None)


@dataclass
class _State:
    """A state of an episode, the policy's samples at it, and the best response so far."""

    episode: _Episode
    own: Sequence[Attempt]
    best: dict[str, Any] | None = None
    others: list[Attempt] = field(default_factory=list)  # the teacher's candidates, for the counts

    def offer(self, found: dict[str, Any] | None) -> None:
        """Take a response of higher reward; sources that come first win ties."""
        if found is not None and (self.best is None or found["reward"] > self.best["reward"]):
            self.best = found

    def to_dict(self, turn: int) -> dict[str, Any]:
        """Plain values for a journal; failures of the engine only where there are any."""
        candidates = [*self.own, *self.others]
        errors = [c.error for c in candidates if c.error is not None]
        plain = {
            "turn": turn,
            "rewards": [c.reward for c in self.own if c.error is None],
            "repeats": sum(c.is_repeat for c in candidates),
            "degenerate": sum(c.is_degenerate for c in candidates),
            "improved": self.best,
        }
        return plain | ({"errors": len(errors), "error": errors[0]} if errors else {})


def collect_episodes(
    player: Player,
    problems: Sequence[Problem],
    settings: CollectSettings,
    *,
    seed: int,
    teacher: Player | None = None,
) -> list[dict[str, Any]]:
    """Play episodes in lockstep and find an improved response at every state.

    Args:
        player: The policy.
        problems: Played together; every turn is one engine call.
        settings: Turns, N, and where improved responses come from.
        seed: Of all sampling.
        teacher: Needed where `settings.improve` names it.

    Returns:
        One record a problem: `problem` (id), `turns` (attempts), and `states`, each with `turn` (from 1),
        `rewards` of the policy's N samples, counts of `repeats` and `degenerate` candidates, and `improved`
        (text, reward, source), or None where every candidate was dropped; `errors` and the first `error`
        where an engine failed. An episode ends at its first right answer, at a
        degenerate attempt, or where the engine failed.
    """
    episodes = [_Episode(problem) for problem in problems]
    for turn in range(1, settings.turns + 1):
        active = [episode for episode in episodes if not episode.is_over]
        if active:
            _play_turn(player, active, settings, turn, seed, teacher)
    return [
        {"problem": e.problem.id, "turns": [a.to_dict() for a in e.attempts], "states": e.states}
        for e in episodes
    ]


def _play_turn(
    player: Player,
    active: Sequence[_Episode],
    settings: CollectSettings,
    turn: int,
    seed: int,
    teacher: Player | None,
) -> None:
    problems, done = [e.problem for e in active], [e.attempts for e in active]
    replies = player.ask(problems, done, settings.samples, derive_seed(seed, turn))
    own = [_judge_all(player, e, texts) for e, texts in zip(active, replies, strict=True)]
    states = [_State(episode, candidates) for episode, candidates in zip(active, own, strict=True)]
    for source in settings.improve:  # in the recipe's order, and only where nothing right is there yet
        unsolved = [state for state in states if state.best is None or state.best["reward"] < 1]
        if source == "teacher" and teacher is not None and settings.teacher is not None and unsolved:
            _ask_teacher(teacher, unsolved, settings.teacher.samples, derive_seed(seed, turn, "teacher"))
        for state in unsolved:
            if source == "self":
                state.offer(_best(state.own, "self"))
            elif source == "reference":
                state.offer(_reference(player, state.episode.problem))
    for state in states:
        state.episode.states.append(state.to_dict(turn))
        state.episode.attempts.append(_own_attempt(state.own))


def _judge_all(player: Player, episode: _Episode, replies: Sequence[Completion]) -> list[Attempt]:
    return [judge(player.task, episode.problem, reply, episode.attempts) for reply in replies]


def _own_attempt(candidates: Sequence[Attempt]) -> Attempt:
    """The first sample that the engine did give; the error itself where there is none."""
    return next((c for c in candidates if c.error is None), candidates[0])


def _ask_teacher(teacher: Player, states: Sequence[_State], samples: int, seed: int) -> None:
    """Ask the teacher at these states, in one call."""
    asked = [state.episode for state in states]
    replies = teacher.ask([e.problem for e in asked], [e.attempts for e in asked], samples, seed)
    for state, texts in zip(states, replies, strict=True):
        candidates = _judge_all(teacher, state.episode, texts)
        state.others += candidates
        state.offer(_best(candidates, "teacher"))


def _best(candidates: Sequence[Attempt], source: str) -> dict[str, Any] | None:
    """The candidate of highest reward, likelier ones first among equals; repeats and degenerates are out."""
    usable = [c for c in candidates if c.error is None and not c.is_repeat and not c.is_degenerate]
    if not usable:
        return None
    best = max(usable, key=lambda c: (c.reward, (c.logprob or 0.0) / max(1, c.tokens)))
    return {"text": best.text, "reward": best.reward, "source": source}


def _reference(player: Player, problem: Problem) -> dict[str, Any] | None:
    if problem.solution is None:
        return None
    reward = player.task.check(problem, problem.solution).reward
    return {"text": problem.solution, "reward": reward, "source": "reference"}
