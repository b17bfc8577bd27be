"""The evaluation protocol of RISE (section 5): P parallel samples, and R turns without an oracle.

One sequential rollout gives both m1@tR and p1@tR: up to its first right answer, an episode that is
never told it was right is the very episode that an oracle would have stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.rise.rollout import Player, rollout
from llmctl.rise.turns import Attempt, judge
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem


def evaluate_problems(
    player: Player, problems: Sequence[Problem], *, turns: int, parallel: int, seed: int
) -> list[dict[str, Any]]:
    """Sample P answers at the first turn, and play R turns from the first of them.

    Args:
        player: The policy; greedy where its temperature is 0 (the P samples are then one and the same).
        problems: Played in lockstep.
        turns: R.
        parallel: P.
        seed: Of all sampling; the same seed before and after training.

    Returns:
        One record a problem: `problem`, `gold`, `parallel` and `turns`, both lists of attempts.
    """
    n = 1 if player.sampling.temperature == 0 else parallel
    replies = player.ask(problems, [[] for _ in problems], n, derive_seed(seed, "parallel"))
    samples = [
        [judge(player.task, problem, reply) for reply in row]
        for problem, row in zip(problems, replies, strict=True)
    ]
    first = [row[0] for row in samples]
    episodes = rollout(
        player, problems, turns, seed=derive_seed(seed, "turns"), stop_when_correct=False, first=first
    )
    return [
        {
            "problem": problem.id,
            "gold": problem.answer,
            "parallel": [_brief(attempt) for attempt in (row * parallel)[:parallel]],
            "turns": [_brief(attempt) for attempt in episode],
        }
        for problem, row, episode in zip(problems, samples, episodes, strict=True)
    ]


def _brief(attempt: Attempt) -> dict[str, Any]:
    plain = attempt.to_dict()
    del plain["message"], plain["logprob"]
    return plain
