"""Rollouts: turns of all problems together, stopped by an oracle or not."""

from llmctl.rise.rollout import rollout

from .helpers import attempt, number_of, player, problems, right, turn_of


def late(conversation, seed):
    """Problem i is answered at turn i + 1."""
    return right(conversation) if turn_of(conversation) > number_of(conversation) else f"{seed} 0"


def test_an_oracle_stops_each_episode_at_its_first_right_answer():
    found = rollout(player(late), problems(4), 3, seed=1)
    assert [[turn.is_correct for turn in episode] for episode in found] == [
        [True],
        [False, True],
        [False, False, True],
        [False, False, False],
    ]


def test_without_an_oracle_all_turns_are_played_and_each_turn_is_one_call():
    policy = player(late)
    found = rollout(policy, problems(4), 3, seed=1, stop_when_correct=False)
    assert [len(episode) for episode in found] == [3] * 4
    assert policy.sampler.usage.calls == 3


def test_first_turns_that_exist_are_kept():
    found = rollout(player(late), problems(2), 2, seed=1, first=[attempt("0"), attempt("b", True)])
    assert found[0][0].text == "0" and found[0][1].is_correct
    assert [turn.text for turn in found[1]] == ["b"]
