"""Collection: on-policy episodes, and an improved response at every state (RISE, section 4.1).

The N samples at a state serve two purposes: the first one is the policy's next turn, and the best one is
the improved response of self-distillation. Where none of them is right, a teacher or the task's reference
solution takes their place, as the recipe says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmctl.rise.recipe import CollectSettings
from llmctl.rise.records import Episode, Improved, State, Turn
from llmctl.rise.rollout import Player
from llmctl.rise.turns import judge
from llmctl.sampling import Completion
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem


@dataclass
class _OpenEpisode:
    """An episode while it is sampled."""

    problem: Problem
    goes_on: bool = False  # after a right answer
    turns: list[Turn] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        last = self.turns[-1] if self.turns else None
        if last is None:
            return False
        return last.is_degenerate or last.error is not None or (last.is_correct and not self.goes_on)

    def close(self) -> Episode:
        return Episode(self.problem.id, tuple(self.turns), tuple(self.states))


@dataclass
class _OpenState:
    """A state of an episode, the policy's samples at it, and the best response so far."""

    episode: _OpenEpisode
    own: Sequence[Turn]
    best: Improved | None = None
    others: list[Turn] = field(default_factory=list)  # the teacher's candidates, for the counts

    def offer(self, found: Improved | None) -> None:
        """Take a response of higher reward; among equal rewards, the first source wins."""
        if found is not None and (self.best is None or found.reward > self.best.reward):
            self.best = found

    def close(self, turn: int) -> State:
        candidates = [*self.own, *self.others]
        errors = [c.error for c in candidates if c.error is not None]
        return State(
            turn=turn,
            rewards=tuple(c.reward for c in self.own if c.error is None),
            repeats=sum(c.is_repeat for c in candidates),
            degenerate=sum(c.is_degenerate for c in candidates),
            improved=self.best,
            errors=len(errors),
            error=errors[0] if errors else None,
        )


def collect_episodes(
    player: Player,
    problems: Sequence[Problem],
    settings: CollectSettings,
    *,
    seed: int,
    teacher: Player | None = None,
) -> list[Episode]:
    """Sample episodes, all problems together turn by turn, and find an improved response at every state.

    Args:
        player: The policy.
        problems: Every turn of all of them is one call of the engine.
        settings: Number of turns, N, and where improved responses come from.
        seed: Seed for all sampling.
        teacher: Required where `settings.improve` names it.

    Returns:
        One episode per problem. An episode ends at its first right answer (unless `settings.go_on`), at a
        degenerate response, or where the engine failed.
    """
    episodes = [_OpenEpisode(problem, settings.go_on) for problem in problems]
    for turn in range(1, settings.turns + 1):
        active = [episode for episode in episodes if not episode.is_over]
        if active:
            _play_turn(player, active, settings, turn, seed, teacher)
    return [episode.close() for episode in episodes]


def _play_turn(
    player: Player,
    active: Sequence[_OpenEpisode],
    settings: CollectSettings,
    turn: int,
    seed: int,
    teacher: Player | None,
) -> None:
    problems, done = [e.problem for e in active], [e.turns for e in active]
    replies = player.ask(problems, done, settings.samples, derive_seed(seed, turn))
    own = [_judge_all(player, e, texts) for e, texts in zip(active, replies, strict=True)]
    states = [_OpenState(episode, candidates) for episode, candidates in zip(active, own, strict=True)]
    for source in settings.improve:  # in the recipe's order, and only where nothing is right yet
        unsolved = [state for state in states if state.best is None or state.best.reward < 1]
        if source == "teacher" and teacher is not None and settings.teacher is not None and unsolved:
            _ask_teacher(teacher, unsolved, settings.teacher.samples, derive_seed(seed, turn, "teacher"))
        for state in unsolved:
            if source == "self":
                state.offer(_best(state.own, "self"))
            elif source == "reference":
                state.offer(_reference(player, state.episode.problem))
    for state in states:
        state.episode.states.append(state.close(turn))
        state.episode.turns.append(_own_turn(state.own))


def _judge_all(player: Player, episode: _OpenEpisode, replies: Sequence[Completion]) -> list[Turn]:
    return [judge(player.task, episode.problem, reply, episode.turns) for reply in replies]


def _own_turn(candidates: Sequence[Turn]) -> Turn:
    """The first sample that the engine did not fail on; the failure itself where there is none."""
    return next((c for c in candidates if c.error is None), candidates[0])


def _ask_teacher(teacher: Player, states: Sequence[_OpenState], samples: int, seed: int) -> None:
    """Sample the teacher at these states, in one call."""
    episodes = [state.episode for state in states]
    replies = teacher.ask([e.problem for e in episodes], [e.turns for e in episodes], samples, seed)
    for state, texts in zip(states, replies, strict=True):
        candidates = _judge_all(teacher, state.episode, texts)
        state.others += candidates
        state.offer(_best(candidates, "teacher"))


def _best(candidates: Sequence[Turn], source: str) -> Improved | None:
    """The candidate of highest reward, the likelier one among equals.

    Degenerate responses are out, and so are repeats of an earlier turn, but for right ones: to give a right
    answer again is what an episode that goes on after it should teach.
    """
    usable = [
        c for c in candidates if c.error is None and not c.is_degenerate and (c.is_correct or not c.is_repeat)
    ]
    if not usable:
        return None
    best = max(usable, key=lambda c: (c.reward, (c.logprob or 0.0) / max(1, c.tokens)))
    return Improved(best.text, best.reward, source)


def _reference(player: Player, problem: Problem) -> Improved | None:
    if problem.solution is None:
        return None
    return Improved(problem.solution, player.task.check(problem, problem.solution).reward, "reference")
