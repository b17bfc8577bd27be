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
        `rewards` of the policy's N samples, and `improved` (text, reward, source), or None where every
        candidate was dropped as a repeat or degenerate. An episode ends at its first right answer, at a
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
    improved = [_improve(player, e, c, settings) for e, c in zip(active, own, strict=True)]
    if teacher is not None and settings.teacher is not None:
        _ask_teacher(teacher, active, improved, settings, derive_seed(seed, turn, "teacher"))
    for episode, candidates, best in zip(active, own, improved, strict=True):
        episode.states.append(
            {
                "turn": turn,
                "rewards": [c.reward for c in candidates if c.error is None],
                "repeats": sum(c.is_repeat for c in candidates),
                "degenerate": sum(c.is_degenerate for c in candidates),
                "improved": best,
            }
        )
        episode.attempts.append(_own_attempt(candidates))


def _judge_all(player: Player, episode: _Episode, replies: Sequence[Completion]) -> list[Attempt]:
    return [judge(player.task, episode.problem, reply, episode.attempts) for reply in replies]


def _own_attempt(candidates: Sequence[Attempt]) -> Attempt:
    """The first sample that the engine did give; the error itself where there is none."""
    return next((c for c in candidates if c.error is None), candidates[0])


def _improve(
    player: Player, episode: _Episode, candidates: Sequence[Attempt], settings: CollectSettings
) -> dict[str, Any] | None:
    """The best of the sources that cost nothing more: the policy's samples and the reference."""
    best: dict[str, Any] | None = None
    for source in settings.improve:
        found = None
        if source == "self":
            found = _best(candidates, "self")
        elif source == "reference" and "teacher" not in _before(settings, "reference"):
            found = _reference(player, episode.problem)
        best = _better(best, found)
    return best


def _ask_teacher(
    teacher: Player,
    active: Sequence[_Episode],
    improved: list[dict[str, Any] | None],
    settings: CollectSettings,
    seed: int,
) -> None:
    """Ask the teacher, in one call, at the states that have no right response yet; fill `improved`."""
    open_states = [i for i, best in enumerate(improved) if best is None or best["reward"] < 1]
    if not open_states or settings.teacher is None:
        return
    asked = [active[i] for i in open_states]
    replies = teacher.ask(
        [e.problem for e in asked], [e.attempts for e in asked], settings.teacher.samples, seed
    )
    for i, episode, texts in zip(open_states, asked, replies, strict=True):
        improved[i] = _better(improved[i], _best(_judge_all(teacher, episode, texts), "teacher"))
        if "reference" in settings.improve:
            improved[i] = _better(improved[i], _reference(teacher, episode.problem))


def _before(settings: CollectSettings, source: str) -> tuple[str, ...]:
    return settings.improve[: settings.improve.index(source)]  # type: ignore[arg-type]


def _best(candidates: Sequence[Attempt], source: str) -> dict[str, Any] | None:
    """The candidate of highest reward, likelier ones first among equals; repeats and degenerates are out."""
    usable = [c for c in candidates if c.error is None and not c.is_repeat and not c.is_degenerate]
    if not usable:
        return None
    best = max(usable, key=lambda c: (c.reward, c.logprob / max(1, c.tokens)))
    return {"text": best.text, "reward": best.reward, "source": source}


def _reference(player: Player, problem: Problem) -> dict[str, Any] | None:
    if problem.solution is None:
        return None
    reward = player.task.check(problem, problem.solution).reward
    return {"text": problem.solution, "reward": reward, "source": "reference"}


def _better(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any] | None:
    """`new` where it has the higher reward; sources that come first win ties."""
    if new is None or (old is not None and old["reward"] >= new["reward"]):
        return old
    return new
