"""The evaluation protocol, and that one rollout tells what an oracle's would."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import EngineError
from llmctl.rise.evaluate import evaluate_problems
from llmctl.rise.metrics import scores
from llmctl.rise.rollout import rollout
from llmctl.rise.turns import judge
from llmctl.sampling.common import derive_seed

from .helpers import TASK, gambler, number_of, player, problems, turn_of


def evaluated(script, turns=5, parallel=5, count=12, seed=3, **sampling):
    """The records as a journal holds them."""
    found = evaluate_problems(
        player(script, **sampling), problems(count), turns=turns, parallel=parallel, seed=seed
    )
    return [record.to_dict() for record in found]


@settings(max_examples=25, deadline=None)
@given(
    chance=st.floats(0, 1),
    turns=st.integers(1, 5),
    window=st.none() | st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_an_oracle_stops_where_the_plain_rollout_is_first_right(chance, turns, window, seed):
    """p1@tR from the rollout without an oracle is that of a real oracle with the same seeds."""
    policy = player(gambler(chance), window=window)
    records = evaluate_problems(policy, problems(12), turns=turns, parallel=3, seed=seed)
    replies = policy.ask(problems(12), [[]] * 12, 3, derive_seed(seed, "parallel"))
    first = [judge(TASK, problem, row[0]) for problem, row in zip(problems(12), replies, strict=True)]
    oracle = rollout(policy, problems(12), turns, seed=derive_seed(seed, "turns"), first=first)
    assert scores(records).any_turn.tolist() == [float(episode[-1].is_correct) for episode in oracle]
    for record, episode in zip(records, oracle, strict=True):
        assert [t.text for t in record.turns][: len(episode)] == [attempt.text for attempt in episode]


def test_all_turns_are_played_whether_right_or_not():
    for record in evaluated(gambler(0.7)):
        assert (len(record["turns"]), len(record["parallel"])) == (5, 5)
        assert record["turns"][0]["text"] == record["parallel"][0]["text"]


def test_a_right_answer_is_followed_by_what_follows_a_wrong_one():
    said = []

    def script(conversation, seed):
        if turn_of(conversation) > 1:
            said.append(conversation[-1]["content"].split("\n")[0])
        return "a"  # right for problem 0, wrong for problem 1

    evaluated(script, turns=2, count=2)
    assert set(said) == {"That is not correct.", "Wrong."}


def test_greedy_samples_are_drawn_once_and_counted_as_all_the_parallel_ones():
    calls = []
    records = evaluated(lambda c, s: calls.append(1) or "a", turns=1, count=2, temperature=0)
    assert len(calls) == 2
    assert [len(record["parallel"]) for record in records] == [5, 5]


def test_before_and_after_draw_with_the_same_seeds():
    assert evaluated(gambler(0.5)) == evaluated(gambler(0.5))
    assert evaluated(gambler(0.5), seed=4) != evaluated(gambler(0.5))


def test_an_engine_failure_ends_one_episode_and_counts_as_wrong():
    inner = gambler(0.5)

    def script(conversation, seed):
        if number_of(conversation) == 1 and turn_of(conversation) == 3:
            raise EngineError("gone")
        return inner(conversation, seed)

    whole, found = evaluated(inner), evaluated(script)
    assert found[0] == whole[0] and found[2:] == whole[2:]
    assert len(found[1]["turns"]) == 3 and found[1]["turns"][-1]["error"] == "gone"
    assert found[1]["turns"][:2] == whole[1]["turns"][:2]


def test_gold_and_records_survive_json():
    import json

    records = evaluated(gambler(0.5))
    assert json.loads(json.dumps(records)) == records
    assert [record["gold"] for record in records] == [problem.answer for problem in problems(12)]
