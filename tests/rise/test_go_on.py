"""Episodes that go on after a right answer: keeping one is collected, trained and weighed like a repair."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.rise.collect import collect_episodes
from llmctl.rise.dataset import training_rows, write_rows
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.turns import next_conversation
from llmctl.runs.recipe import parse_recipe

from .helpers import TASK, attempt, collecting, player, problems, right, turn_of

RECIPE = RiseRecipe(
    collect={"go_on": True, "turns": 3}, sampling={"retry": "Check your answer."}, weights={"balance": True}
)


def right_at_the_second_turn(conversation, seed):
    return right(conversation) if turn_of(conversation) >= 2 else "0"


def episodes(settings):
    return collect_episodes(player(right_at_the_second_turn), problems(4), settings, seed=1)


def test_an_episode_goes_on_after_a_right_answer_and_takes_the_repeat_as_improved():
    for episode in episodes(collecting(go_on=True)):
        assert [turn.is_correct for turn in episode.turns] == [False, True, True]
        assert episode.turns[2].is_repeat
        assert episode.states[2].improved is not None and episode.states[2].improved.reward == 1


def test_without_it_episodes_end_as_before():
    assert all(len(episode.turns) == 2 for episode in episodes(collecting()))


def test_rows_are_first_answers_repairs_and_keeps(tmp_path):
    rows = list(training_rows(TASK, problems(4), episodes(RECIPE.collect), RECIPE))
    assert [row["kind"] for row in rows] == ["repair", "keep"] * 4
    assert rows[1]["prompt"][-1]["content"].startswith("Check your answer.\n")


def test_balance_gives_every_kind_the_same_total_weight(tmp_path):
    made = [("first", 1.0)] * 6 + [("repair", 2.0)] * 2 + [("keep", 0.5)]
    rows = [
        {
            "prompt": [],
            "completion": [],
            "weight": weight,
            "kind": kind,
            "turn": 1,
            "source": "self",
            "reward": 1.0,
        }
        for kind, weight in made
    ]
    counts = write_rows(rows, tmp_path / "rows.jsonl", balance=True)
    weights = [json.loads(line)["weight"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sum(weights[:6]) == pytest.approx(sum(weights[6:8])) == pytest.approx(weights[8])
    assert sum(weights) == pytest.approx(9)
    assert (counts["first"], counts["repair"], counts["keep"]) == (6, 2, 1)


def test_a_list_of_retries_is_taken_in_turn_whatever_the_window_shows():
    retries = ("One.", "Two.")
    turns = [attempt("1"), attempt("2"), attempt("3")]
    whole = [m["content"] for m in next_conversation(TASK, problems(1)[0], turns, None, retries)]
    assert [text.split("\n")[0] for text in whole[3::2]] == ["One.", "Two.", "One."]
    shown = [m["content"] for m in next_conversation(TASK, problems(1)[0], turns, 1, retries)]
    assert shown[-1].startswith("One.\n")


def test_going_on_needs_a_message_that_does_not_say_wrong():
    with pytest.raises(UserError, match="set sampling.retry to a neutral message"):
        parse_recipe(RiseRecipe, {"collect": {"go_on": True}}, "a.yaml")
