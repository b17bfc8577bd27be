"""The records of a run keep their JSON keys and come back as they were."""

import json

import pytest

from llmctl.rise.records import Episode, Evaluation, Improved, State, Turn

TURN = Turn("it is a", 1.0, True, "a", "That is not correct.", 3, -1.5)
FLAGGED = Turn("no no", -1.0, False, None, "Again.", 2, None, is_repeat=True, is_degenerate=True)
FAILED = Turn("", -1.0, False, None, "", 0, 0.0, error="server gone")
STATE = State(1, (0.0, 1.0), 1, 0, Improved("it is a", 1.0, "self"))
BROKEN = State(2, (), 0, 0, None, errors=2, error="server gone")
EPISODE = Episode("p", (TURN, FAILED), (STATE, BROKEN))


@pytest.mark.parametrize("record", [TURN, FLAGGED, FAILED, STATE, BROKEN, EPISODE])
def test_a_record_survives_json(record):
    assert type(record).from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_an_evaluation_leaves_out_messages_and_log_probabilities():
    plain = Evaluation("p", "a", (TURN,), (TURN, FLAGGED)).to_dict()
    assert list(plain) == ["problem", "gold", "parallel", "turns"]
    assert list(plain["parallel"][0]) == ["text", "reward", "is_correct", "answer", "tokens"]
    found = Evaluation.from_dict(plain)
    assert (found.turns[1].is_repeat, found.turns[0].message, found.turns[0].logprob) == (True, "", None)
    assert found.to_dict() == plain


def test_the_keys_of_a_journal_line_are_those_of_earlier_runs():
    plain = EPISODE.to_dict()
    assert list(plain) == ["problem", "turns", "states"]
    keys = ["text", "reward", "is_correct", "answer", "message", "tokens", "logprob"]
    assert list(plain["turns"][0]) == keys
    assert list(plain["turns"][1]) == [*keys, "error"]
    assert list(FLAGGED.to_dict()) == [*keys, "is_repeat", "is_degenerate"]
    assert list(plain["states"][0]) == ["turn", "rewards", "repeats", "degenerate", "improved"]
    assert list(plain["states"][1])[5:] == ["errors", "error"]


def test_log_probabilities_are_rounded_to_four_places():
    assert Turn("", 0.0, False, None, "", 1, -1.23456789).to_dict()["logprob"] == -1.2346
