"""Votes, pass@k, flows and gains against counting by hand and by brute force."""

import itertools

import numpy as np
import pytest

from llmctl.rise.metrics import flows, paired_gains, pass_at_k, scores, summarize, vote

from .helpers import record


@pytest.mark.parametrize(
    ("attempts", "chance"),
    [
        ("R", 1),
        ("W", 0),
        ("RRW", 1),
        ("RWW", 0),
        ("RW", 1 / 2),
        ("RWV", 1 / 3),
        ("RRWWV", 1 / 2),
        ("WWVV", 0),
        ("??R", 1),  # the unreadable do not vote
        ("???", 0),
        ("?", 0),
    ],
)
def test_a_majority_vote_breaks_ties_at_random(attempts, chance):
    assert vote(record(attempts, "R").parallel) == pytest.approx(chance)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
        assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


RECORDS = [
    record("RRWWW", "WRR", "1"),  # m1 0.4, vote 0 (WWW), m1@t3 1, p1@t3 1
    record("RRRRR", "RWV", "2"),  # m1 1, vote 1, m1@t3 1/3, p1@t3 1
    record("?????", "WWW", "3"),  # all 0
    record("RVW??", "RRR", "4"),  # m1 0.2, vote 1/3, m1@t3 1, p1@t3 1
]


def test_scores_of_every_problem():
    found = scores(RECORDS).by_name()
    assert found["m1_t1"] == pytest.approx([0.4, 1, 0, 0.2])
    assert found["m5_t1"] == pytest.approx([0, 1, 0, 1 / 3])
    assert found["m1_t3"] == pytest.approx([1, 1 / 3, 0, 1])
    assert found["p1_t3"] == pytest.approx([1, 1, 0, 1])
    # pass@2 of two right in five: 1 - C(3,2) / C(5,2) = 0.7; of one: 1 - 6 / 10 = 0.4
    assert found["pass_2"] == pytest.approx([0.7, 1, 0, 0.4])
    assert found["pass_5"] == pytest.approx([1, 1, 0, 1])


def test_the_summary_averages_problems_and_pairs_the_gains():
    found = summarize(RECORDS)
    assert found["m1_t1"].value == pytest.approx(1.6 / 4)
    assert found["m5_t1"].value == pytest.approx((1 + 1 / 3) / 4)
    assert found["m1_t3"].value == pytest.approx((2 + 1 / 3) / 4)
    assert found["compute_matched_gain"].value == pytest.approx(1 / 4)
    assert found["gain_over_turns"].value == pytest.approx((2 + 1 / 3) / 4 - 0.4)
    assert found["oracle_matched_gain"].value == pytest.approx(0)
    assert {found[name].n for name in ("m1_t1", "m5_t1", "p1_t3", "compute_matched_gain")} == {4}
    for name in ("m1_t1", "m5_t1", "m1_t3", "p1_t3", "compute_matched_gain"):
        assert set(found[name].to_dict()) == {"value", "low", "high", "n"}
        assert found[name].low <= found[name].value <= found[name].high


def test_rates_of_zeros_and_ones_have_wilson_intervals():
    # 3 of 4: centre and half width by the formula with z = 1.959964
    assert (summarize(RECORDS)["p1_t3"].low, summarize(RECORDS)["p1_t3"].high) == pytest.approx(
        (0.30064, 0.95441), abs=1e-5
    )


def test_flows_count_what_became_of_the_turn_before():
    first, second, third = flows(RECORDS)
    assert [turn["accuracy"].value for turn in (first, second, third)] == [0.5, 0.5, 0.5]
    assert "wrong_to_right" not in first
    names = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")
    assert [second[name] for name in names] == [1, 1, 1, 1]  # problems 1, 2, 4, 3
    assert [third[name] for name in names] == [0, 0, 2, 2]


def test_flows_of_an_episode_that_an_engine_failure_cut_short():
    cut = record("RRR", "E", "5")
    table = flows([*RECORDS, cut])
    assert [turn["errors"] for turn in table] == [1, 0, 0]
    assert [turn["accuracy"].n for turn in table] == [5, 4, 4]


def test_engine_failures_are_counted_once_each():
    failed = record("REW", "REW", "5")
    first = record("ERR", "E", "6")  # the first turn is the first sample
    assert summarize([failed, first])["errors"] == 3


def test_gains_are_after_minus_before_problem_by_problem():
    after = [record("RRRRR", "RRR", str(i)) for i in (1, 2, 3, 4)]
    gains = paired_gains(RECORDS, after)
    assert gains["m1_t1"].value == pytest.approx(0.6)
    assert gains["compute_matched_gain"].value == pytest.approx(0 - 1 / 4)
    assert gains["oracle_matched_gain"].value == pytest.approx(0)


def test_gains_of_other_problems_are_refused():
    with pytest.raises(ValueError, match="not of the same problems"):
        paired_gains(RECORDS, RECORDS[::-1])


def test_pairing_is_what_narrows_the_interval():
    """A constant gain of 0.2 on very different problems has no spread at all when paired."""
    generator = np.random.default_rng(0)
    before = [
        record("R" * c + "W" * (5 - c), "W", str(i)) for i, c in enumerate(generator.integers(0, 5, 40))
    ]
    after = [record("R" + "".join(a.text for a in r.parallel)[:4], "W", r.problem) for r in before]
    gain = paired_gains(before, after)["m1_t1"]
    assert (gain.low, gain.value, gain.high) == pytest.approx((0.2, 0.2, 0.2))
