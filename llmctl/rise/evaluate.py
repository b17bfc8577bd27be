"""The evaluation protocol of RISE (section 5): P parallel samples, and R turns without an oracle.

One sequential rollout gives both m1@tR and p1@tR: up to its first right answer, an episode that is
never told that it was right equals the episode that an oracle would have stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.rise.records import Evaluation
from llmctl.rise.rollout import Player, rollout
from llmctl.rise.turns import judge
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem


def evaluate_problems(
    player: Player, problems: Sequence[Problem], *, turns: int, parallel: int, seed: int
) -> list[Evaluation]:
    """Sample P answers at the first turn, and play R turns from the first of them.

    Args:
        player: The policy; greedy where its temperature is 0 (the P samples are then identical).
        problems: They take each turn together.
        turns: R, the number of turns.
        parallel: P, the number of parallel samples.
        seed: Seed for all sampling; evaluations before and after training take the same one.

    Returns:
        One record per problem, in order.
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
        Evaluation(problem.id, problem.answer, tuple((row * parallel)[:parallel]), tuple(episode))
        for problem, row, episode in zip(problems, samples, episodes, strict=True)
    ]
