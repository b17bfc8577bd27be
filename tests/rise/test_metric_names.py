"""Metric names say how many samples and turns were run, and the names of old files are still found."""

import pytest

from llmctl.rise.metric_names import MetricNames
from llmctl.rise.metrics import summarize

from .helpers import record

ROLES = ("parallel_vote", "turn_vote", "any_turn", "any_sample")


def test_with_five_samples_and_five_turns_the_names_are_those_of_the_paper():
    names = MetricNames()
    assert [getattr(names, role) for role in ROLES] == ["m5_t1", "m1_t5", "p1_t5", "pass_5"]


def test_other_numbers_are_in_the_names():
    names = MetricNames(parallel=3, turns=7)
    assert [getattr(names, role) for role in ROLES] == ["m3_t1", "m1_t7", "p1_t7", "pass_3"]


def test_a_summary_has_the_names_of_what_was_run():
    found = summarize([record("RWW", "WR", "1"), record("WWW", "WW", "2")])
    assert {"m1_t1", "m3_t1", "m1_t2", "p1_t2", "pass_3"} < set(found)
    assert not {"m5_t1", "m1_t5", "p1_t5"} & set(found)


def test_the_turns_that_were_asked_for_name_the_metrics_where_failures_cut_every_episode_short():
    found = summarize([record("RWW", "WE", "1")], turns=4)
    assert "m1_t4" in found and "m1_t2" not in found


def test_with_one_turn_m1_t1_is_the_mean_over_the_samples_and_the_gain_that_of_the_first_sample():
    found = summarize([record("RWW", "R", "1")])
    assert found["m1_t1"].value == pytest.approx(1 / 3)
    assert found["compute_matched_gain"].value == pytest.approx(1 - 0)


def test_a_file_of_an_earlier_version_is_read_by_its_old_names():
    old = {"m1_t1": 1, "m5_t1": 2, "m1_t5": 3, "p1_t5": 4, "pass_3": 5}
    names = MetricNames(parallel=3, turns=7)
    assert [names.find(old, role) for role in ROLES] == [2, 3, 4, 5]
    new = {"m3_t1": 2, "m1_t7": 3, "p1_t7": 4, "pass_3": 5, "m5_t1": 9}
    assert [names.find(new, role) for role in ROLES] == [2, 3, 4, 5]
    with pytest.raises(KeyError):
        names.find({}, "any_sample")
