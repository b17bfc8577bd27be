"""Collection with scripted policies and teachers."""

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.rise.collect import collect_episodes
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.rollout import Player
from llmctl.runs.recipe import parse_recipe
from llmctl.sampling.scripted import ScriptedSampler

from .helpers import TASK, collecting, gambler, number_of, player, problems, right, turn_of


def collect(script, settings=None, teacher=None, count=4):
    """The episodes as a journal holds them."""
    found = collect_episodes(
        player(script), problems(count), settings or collecting(), seed=1, teacher=teacher and player(teacher)
    )
    return [episode.to_dict() for episode in found]


def with_teacher(*sources, samples=1):
    return collecting(improve=sources, teacher={"model": "t", "samples": samples})


def test_an_episode_ends_at_its_first_right_answer():
    # problem i is answered at turn i + 1
    def script(conversation, seed):
        is_due = turn_of(conversation) > number_of(conversation)
        return right(conversation) if is_due else f"{seed} 0"

    found = collect(script, collecting(turns=3))
    assert [[a["is_correct"] for a in record["turns"]] for record in found] == [
        [True],
        [False, True],
        [False, False, True],
        [False, False, False],
    ]
    assert [[s["turn"] for s in record["states"]] for record in found] == [[1], [1, 2], [1, 2, 3], [1, 2, 3]]


def test_every_turn_is_one_engine_call():
    sampler = ScriptedSampler(gambler(0.3))
    task_player = Player(sampler, TASK, player(gambler(0.3)).sampling)
    collect_episodes(task_player, problems(20), collecting(turns=3), seed=0)
    assert sampler.usage.calls == 3


def test_the_first_sample_goes_on_and_the_best_is_the_improved_response():
    told = {}

    def script(conversation, seed):
        if turn_of(conversation) == 2:
            told[number_of(conversation)] = conversation[-2]["content"]
            return "9"
        seen = told.setdefault(("n", number_of(conversation)), [])
        seen.append(seed)
        return f"{right(conversation)}" if len(seen) == 3 else f"{len(seen)} 0"

    found = collect(script, collecting(turns=2, samples=4))
    for record in found:
        first = record["states"][0]
        assert first["rewards"] == [0, 0, 1, 0]
        assert first["improved"]["source"] == "self" and first["improved"]["reward"] == 1
        assert record["turns"][0]["text"] == "1 0"
    assert [told[i] for i in range(4)] == ["1 0"] * 4


def test_among_equal_rewards_the_likelier_response_wins():
    from llmctl.rise.collect import _best

    from .helpers import attempt

    found = [
        attempt("a", logprob=-8.0, tokens=2),
        attempt("b", logprob=-9.0, tokens=3),
        attempt("c", logprob=None),
    ]
    assert _best(found[:2], "self").text == "b"  # -3 a token against -4
    assert _best(found, "self").text == "c"  # a server that does not tell: the first of these


def test_sources_are_asked_in_order_and_only_where_nothing_is_right_yet():
    asked = []

    def policy(conversation, seed):
        return right(conversation) if number_of(conversation) == 0 else f"{seed} 0"

    def teacher(conversation, seed):
        asked.append(number_of(conversation))
        return f"so: {right(conversation)}" if number_of(conversation) == 1 else f"{seed} 7"

    settings = with_teacher("self", "teacher", "reference")
    found = collect(policy, settings.model_copy(update={"turns": 1}), teacher)
    sources = [record["states"][0]["improved"]["source"] for record in found]
    assert sources == ["self", "teacher", "reference", "reference"]
    assert sorted(asked) == [1, 2, 3]
    assert found[1]["states"][0]["improved"]["text"] == "so: b"
    assert found[2]["states"][0]["improved"]["text"] == "it is c"


def test_a_teacher_that_comes_first_is_asked_first():
    settings = with_teacher("teacher", "self").model_copy(update={"turns": 1})
    found = collect(lambda c, s: right(c), settings, lambda c, s: f"teacher: {right(c)}")
    assert {record["states"][0]["improved"]["source"] for record in found} == {"teacher"}


def test_the_reference_first_spares_the_teacher():
    settings = with_teacher("reference", "teacher").model_copy(update={"turns": 1})

    def teacher(conversation, seed):
        raise AssertionError("not needed")

    found = collect(lambda c, s: "0", settings, teacher)
    assert {record["states"][0]["improved"]["source"] for record in found} == {"reference"}


def test_a_worse_later_source_does_not_replace_a_better_one():
    settings = with_teacher("self", "teacher").model_copy(update={"turns": 1})
    found = collect(lambda c, s: "0", settings, lambda c, s: "?")
    assert {record["states"][0]["improved"]["source"] for record in found} == {"self"}


def test_a_teacher_must_be_named_in_both_places_or_neither():
    for collect_part in ({"improve": ["teacher"]}, {"teacher": {"model": "t"}}):
        with pytest.raises(UserError, match="must name a teacher both, or neither"):
            parse_recipe(RiseRecipe, {"collect": collect_part}, "r.yaml")


def test_repeats_are_dropped_and_counted_and_degenerates_end_the_episode():
    def stubborn(conversation, seed):
        return "it is 0" if number_of(conversation) else "no " * 40

    loop, same, *_ = collect(stubborn, collecting(turns=3, samples=2))
    assert len(loop["turns"]) == 1 and loop["turns"][0]["is_degenerate"]
    assert loop["states"] == [{"turn": 1, "rewards": [0, 0], "repeats": 0, "degenerate": 2, "improved": None}]
    assert [state["repeats"] for state in same["states"]] == [0, 2, 2]
    assert [state["improved"] is None for state in same["states"]] == [False, True, True]
    assert [turn.get("is_repeat", False) for turn in same["turns"]] == [False, True, True]


def failing(numbers, turn=None, share=1.0):
    inner = gambler(0.0)

    def script(conversation, seed):
        is_meant = number_of(conversation) in numbers and turn in (None, turn_of(conversation))
        if is_meant and (seed % 1000) / 1000 < share:
            raise EngineError("server gone")
        return inner(conversation, seed)

    return script


def test_an_engine_failure_ends_its_episode_and_leaves_the_others_alone():
    whole = collect(gambler(0.0))
    found = collect(failing({2}, turn=2))
    assert found[:2] + found[3:] == whole[:2] + whole[3:]
    assert found[2]["turns"][0] == whole[2]["turns"][0]
    assert [turn.get("error") for turn in found[2]["turns"]] == [None, "server gone"]
    nothing = {"turn": 2, "rewards": [], "repeats": 0, "degenerate": 0, "improved": None}
    assert found[2]["states"][1] == nothing | {"errors": 2, "error": "server gone"}


def test_where_only_some_samples_fail_the_others_are_used_and_the_failures_counted():
    found = collect(failing(set(range(20)), share=0.5), collecting(turns=1, samples=4), count=20)
    states = [record["states"][0] for record in found]
    assert all(len(state["rewards"]) + state.get("errors", 0) == 4 for state in states)
    assert any(0 < state.get("errors", 0) < 4 for state in states)
    for record, state in zip(found, states, strict=True):
        assert ("error" in record["turns"][0]) == (state.get("errors") == 4)


def test_a_teachers_failure_is_counted_and_the_next_source_steps_in():
    def gone(conversation, seed):
        raise EngineError("teacher gone")

    settings = with_teacher("self", "teacher", "reference", samples=3).model_copy(update={"turns": 1})
    (record, *_) = collect(lambda c, s: "0", settings, gone)
    (state,) = record["states"]
    assert state["improved"]["source"] == "reference"
    assert (state["errors"], state["error"]) == (3, "teacher gone")


def test_collection_is_a_function_of_its_seed():
    assert collect(gambler(0.3)) == collect(gambler(0.3))
    other = collect_episodes(player(gambler(0.3)), problems(), collecting(), seed=2)
    assert [episode.to_dict() for episode in other] != collect(gambler(0.3))
