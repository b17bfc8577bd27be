"""Rollouts: all problems take each turn together, so that every call of the engine is a large batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.rise.records import Turn
from llmctl.rise.turns import judge, next_conversation
from llmctl.sampling import Completion, Sampler, Settings
from llmctl.sampling.common import derive_seed
from llmctl.sampling.settings import SamplingSettings
from llmctl.sampling.types import BatchSettings
from llmctl.tasks import Problem, Task


@dataclass(frozen=True)
class Player:
    """The sampler, the task and the sampling settings that all calls of a rollout share."""

    sampler: Sampler
    task: Task
    sampling: SamplingSettings
    marks_too_long: bool = False
    """Whether a prompt that is longer than the context is a sample without a reply, and not an error."""

    def ask(
        self, problems: Sequence[Problem], attempts: Sequence[Sequence[Turn]], n: int, seed: int
    ) -> list[list[Completion]]:
        """Sample n next responses for every problem after its turns so far."""
        s = self.sampling
        conversations = [
            next_conversation(self.task, problem, done, s.window, s.retry)
            for problem, done in zip(problems, attempts, strict=True)
        ]
        kind = BatchSettings if self.marks_too_long else Settings
        settings = kind(n, s.temperature, s.top_p, s.max_tokens, seed=seed)
        return self.sampler.chat(conversations, settings)


def rollout(
    player: Player,
    problems: Sequence[Problem],
    turns: int,
    *,
    seed: int,
    stop_when_correct: bool = True,
    first: Sequence[Turn] | None = None,
    earlier: Sequence[Sequence[Turn]] | None = None,
) -> list[list[Turn]]:
    """Play episodes of several turns.

    Args:
        player: Samples and judges.
        problems: They take each turn together.
        turns: R, the maximum number of turns per episode.
        seed: Seed for all sampling.
        stop_when_correct: End an episode at its first right answer (an oracle); otherwise every answer
            is followed by the same feedback as a wrong one, and all R turns are played.
        first: First turns that exist already, one per problem.
        earlier: All turns that exist already, any number per problem; in place of `first`.

    Returns:
        The turns of every problem, in order. An engine failure ends its episode with that turn.
    """
    given = [[attempt] for attempt in first] if first else earlier
    episodes: list[list[Turn]] = [list(done) for done in given] if given else [[] for _ in problems]
    for turn in range(min(map(len, episodes), default=0), turns):
        active = [
            i for i, done in enumerate(episodes) if len(done) == turn and _goes_on(done, stop_when_correct)
        ]
        if not active:
            if all(len(done) <= turn for done in episodes):
                break
            continue
        waiting = [problems[i] for i in active]
        replies = player.ask(waiting, [episodes[i] for i in active], 1, derive_seed(seed, turn))
        for i, (reply,) in zip(active, replies, strict=True):
            episodes[i].append(judge(player.task, problems[i], reply, episodes[i]))
    return episodes


def _goes_on(attempts: Sequence[Turn], stop_when_correct: bool) -> bool:
    if not attempts:
        return True
    return attempts[-1].error is None and not (stop_when_correct and attempts[-1].is_correct)
