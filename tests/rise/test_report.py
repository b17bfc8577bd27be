"""The tables of the report, from metrics with new and with old names."""

from llmctl.rise.metrics import paired_gains, summarize
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.report import episodes, result_table

from .helpers import record

BEFORE = [record("RWW", "WRW", "1"), record("WWW", "RWW", "2")]
AFTER = [record("RRR", "RRR", "1"), record("WRW", "WWW", "2")]
RECIPE = RiseRecipe(evaluate={"parallel": 3, "turns": 3})


def metrics():
    return {
        "before": summarize(BEFORE),
        "after": summarize(AFTER),
        "gain": paired_gains(BEFORE, AFTER),
    }


def test_rows_name_the_samples_and_turns_that_were_run():
    table = result_table(RECIPE, metrics())
    labels = [row[0] for row in table.rows]
    assert "m3@t1: vote of 3 parallel samples" in labels and "p1@t3: any of 3 turns, oracle stop" in labels
    assert table.rows[0][1].startswith("0.167")
    assert all(row[1] and row[2] and row[3] for row in table.rows)


def test_metrics_with_the_names_of_an_earlier_version_give_the_same_table():
    old = {"m3_t1": "m5_t1", "m1_t3": "m1_t5", "p1_t3": "p1_t5"}
    renamed = {
        stage: {old.get(name, name): value for name, value in found.items()}
        for stage, found in metrics().items()
    }
    assert result_table(RECIPE, renamed).rows == result_table(RECIPE, metrics()).rows


def test_with_one_sample_and_one_turn_the_first_row_stands_for_the_votes():
    one = [record("R", "R", "1")]
    table = result_table(RiseRecipe(evaluate={"parallel": 1, "turns": 1}), {"before": summarize(one)})
    labels = [row[0] for row in table.rows]
    assert labels[0] == "m1@t1: one sample" and not any("vote" in label for label in labels)


def test_the_report_shows_a_repaired_and_a_broken_episode_and_says_what_is_missing():
    repaired, broken, never = episodes({0: BEFORE})
    assert "problem 1" in repaired.caption and "turn 2 (right)" in repaired.text
    assert "problem 2" in broken.caption
    assert never == "Never right: there is no such episode among 2."
