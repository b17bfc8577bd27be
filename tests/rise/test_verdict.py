"""What the report says in words."""

import pytest

from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.verdict import verdicts
from llmctl.runs import Estimate

UP, DOWN, NONE = (
    Estimate(0.1, 0.05, 0.15, 50),
    Estimate(-0.1, -0.15, -0.05, 50),
    Estimate(0.01, -0.04, 0.06, 50),
)


def stage(over=NONE, matched=NONE, oracle=NONE, errors=0):
    turns = [
        {"repeats": 1},
        {"repeats": 2, "wrong_to_right": 3, "right_to_wrong": 4},
        {"repeats": 5, "wrong_to_right": 1, "right_to_wrong": 0},
    ]
    return {
        "gain_over_turns": over,
        "compute_matched_gain": matched,
        "oracle_matched_gain": oracle,
        "turns": turns,
        "errors": errors,
    }


def said(recipe=None, gain=None, rows=None, **figures):
    metrics = {"before": stage(**figures), "rows": rows or {}}
    if gain is not None:
        metrics |= {"after": stage(**figures), "gain": {"m1_t1": gain}}
    return " ".join(verdicts(recipe or RiseRecipe(), metrics))


def test_a_gain_over_turns_that_a_vote_gives_too_is_called_majority_voting():
    text = said(over=UP, matched=NONE)
    assert "which may be zero: the gain over turns is no more than what majority voting gives" in text
    assert "more than voting" not in text


def test_a_gain_at_equal_compute_is_more_than_voting():
    text = said(over=UP, matched=UP)
    assert "m1@t5 beats m5@t1 by +10.0 points [+5.0, +15.0]: more than voting" in text
    assert "no more than" not in text.split("With an oracle")[0]


def test_a_loss_at_equal_compute_says_that_a_vote_is_the_better_use():
    text = said(over=UP, matched=DOWN)
    assert "falls short of m5@t1: -10.0 points" in text and "better use of the same number" in text


def test_no_gain_over_turns_claims_nothing_of_voting():
    assert "voting" not in said(over=NONE, matched=NONE)


@pytest.mark.parametrize(
    ("gain", "words"),
    [(UP, "raised"), (DOWN, "Training lowered"), (NONE, "did not change .* by more than chance")],
)
def test_training_is_judged_by_its_interval(gain, words):
    import re

    assert re.search(words, said(gain=gain))
    assert ("its interval excludes zero" in said(gain=gain)) == (gain is UP)


@pytest.mark.parametrize(
    ("oracle", "words"), [(UP, "worth more than"), (DOWN, "worth less"), (NONE, "no more than fresh")]
)
def test_the_oracles_gain_is_compared_with_fresh_samples(oracle, words):
    assert words in said(oracle=oracle)


def test_breakage_is_summed_over_turns():
    text = said()
    assert "4 wrong answers became right and 4 right ones became wrong; 7 attempts said what" in text


def test_unequal_compute_greedy_decoding_and_shared_data_are_pointed_out(tmp_path):
    unequal = RiseRecipe(evaluate={"turns": 3})
    assert "3 turns are compared with 5 samples: compute is not equal" in said(unequal)
    assert "compute is not equal" not in said()
    greedy = RiseRecipe(evaluate={"sampling": {"temperature": 0}})
    assert "Decoding is greedy" in said(greedy) and "greedy" not in said()
    path = tmp_path / "data.jsonl"
    path.write_text("")
    same = RiseRecipe(task={"name": "jsonl", "path": path})
    apart = RiseRecipe(task={"name": "jsonl", "path": path, "test_path": tmp_path / "test.jsonl"})
    assert "no held-out figure" in said(same) and "held-out" not in said(apart)


def test_engine_failures_are_told():
    assert "failed on 3 attempts of the evaluation before training; they count as wrong" in said(errors=3)
    assert "failed" not in said()


def test_one_problem_gives_no_interval_and_no_claim():
    lone = Estimate(1.0, None, None, 1)
    text = said(over=lone, matched=lone, oracle=lone, gain=lone)
    assert "(no interval)" in text and "more than voting" not in text and "raised" not in text


def test_rows_that_others_wrote_are_not_taken_for_self_improvement():
    text = said(rows={"1": {"rows": 100, "from self": 20, "from reference": 70, "from teacher": 10}})
    assert "100 responses: 20 of the model itself, 10 of the teacher, 70 of the reference." in text
    assert "learned mostly from others" in text
    text = said(rows={"1": {"rows": 100, "from self": 100}})
    assert "100 responses: 100 of the model itself." in text and "others" not in text
