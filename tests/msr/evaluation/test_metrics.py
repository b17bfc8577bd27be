import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.msr.evaluation.calibration import calibrate
from llmctl.msr.evaluation.metrics import (
    RankCounts,
    chance_levels,
    compare,
    rank_counts,
    rank_target,
    summarize,
    user_metrics,
)


def metrics_of(scores, true=0):
    labels = [[int(place == true) for place in range(len(scores))]]
    return {name: float(v[0]) for name, v in user_metrics(rank_counts([scores], labels)).items()}


def test_hand_derived_numbers_without_ties():
    found = metrics_of([3, 5, 1, 4, 2, 0])  # rank 3 of 6: 3 of 5 others below
    assert found["auc"] == pytest.approx(3 / 5)
    assert (found["hr@3"], found["hr@5"], found["mrr@3"]) == (1, 1, pytest.approx(1 / 3))
    assert found["ndcg@3"] == pytest.approx(1 / math.log2(4))
    assert metrics_of([0, 5, 1, 4, 2, 3])["hr@5"] == 0  # rank 6
    assert metrics_of([9, 5, 1])["ndcg@10"] == 1


def test_hand_derived_numbers_with_ties():
    # one above, two tied: the rank is 2, 3 or 4, each with chance 1/3
    found = metrics_of([1, 2, 1, 1, 0])
    assert found["auc"] == pytest.approx((1 + 2 / 2) / 4)
    assert found["hr@3"] == pytest.approx(2 / 3)
    assert found["mrr@5"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert found["mrr@3"] == pytest.approx((1 / 2 + 1 / 3) / 3)
    assert found["ndcg@3"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / 3)


def test_a_constant_score_gains_nothing_from_where_the_true_item_is_written():
    for true in (0, 7, 20):
        assert metrics_of([0.5] * 21, true) == pytest.approx(chance_levels(21))


def test_chance_levels_of_twenty_one_candidates():
    found = chance_levels(21)
    assert found["auc"] == 0.5
    assert [found[f"hr@{k}"] for k in (3, 5, 10)] == pytest.approx([3 / 21, 5 / 21, 10 / 21])
    assert found["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 21)
    assert found["ndcg@3"] == pytest.approx((1 + 1 / math.log2(3) + 1 / 2) / 21)


SCORES = st.lists(st.integers(0, 3), min_size=2, max_size=6)


@given(SCORES)
@settings(max_examples=80, deadline=None)
def test_the_expectation_is_the_mean_over_all_ways_to_break_ties(scores):
    found = metrics_of(scores)
    totals = dict.fromkeys(found, 0.0)
    orders = list(itertools.permutations(range(len(scores))))
    for order in orders:  # a random order breaks ties
        ranked = sorted(range(len(scores)), key=lambda place, order=order: (-scores[place], order[place]))
        rank = ranked.index(0) + 1
        totals["auc"] += (len(scores) - rank) / (len(scores) - 1)
        for k in (3, 5, 10):
            totals[f"hr@{k}"] += rank <= k
            totals[f"mrr@{k}"] += (rank <= k) / rank
            totals[f"ndcg@{k}"] += (rank <= k) / math.log2(rank + 1)
    assert found == pytest.approx({name: total / len(orders) for name, total in totals.items()})


@given(SCORES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_neither_order_nor_a_monotone_change_of_scores_matters(scores, random):
    places = list(range(len(scores)))
    random.shuffle(places)
    moved = metrics_of([3 * scores[place] ** 3 - 7 for place in places], places.index(0))
    assert moved == pytest.approx(metrics_of(scores))


def test_only_ranked_items_count():
    scores = np.array([[5.0, 4.0, 3.0, 9.0]])
    counts = rank_target(scores, np.array([3.0]), np.array([[True, False, True, True]]))
    assert (counts.greater[0], counts.equal[0], counts.others[0]) == (2, 0, 2)
    both = RankCounts.join([counts, counts])
    assert both.greater.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[1, 2]], [[1, 0, 0]], "both must be"),
        ([[1, 2], [1, math.nan]], [[1, 0], [1, 0]], "row 1 of the scores has a NaN"),
        ([[1, 2], [1, 2]], [[1, 0], [0, 0]], "row 1 of the labels"),
        ([[1, 2]], [[1, 1]], "row 0 of the labels"),
        ([[1, 2]], [[1, 2]], "row 0 of the labels"),
    ],
)
def test_what_has_no_rank_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        rank_counts(scores, labels)


def test_a_hundred_thousand_users_are_ranked_at_once():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 50, (100_000, 21)).astype(float)
    labels = np.zeros(scores.shape, int)
    labels[:, 0] = 1
    found = user_metrics(rank_counts(scores, labels))
    assert found["auc"].mean() == pytest.approx(0.5, abs=0.01)


def test_intervals_and_pairs_are_by_user():
    first = {"auc": np.array([1.0, 0.5, 0.75, 1.0] * 50)}
    second = {"auc": first["auc"] - 0.25}
    figure = summarize(first)["auc"]
    assert figure.n == 200 and figure.value == 0.8125 and figure.low < 0.8125 < figure.high
    gain = compare(first, second)["auc"]
    assert (gain.low, gain.value, gain.high) == pytest.approx((0.25, 0.25, 0.25))  # what is common cancels
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(first, {"hr@3": second["auc"]})


def test_calibration_by_hand():
    found = calibrate([0.1, 0.1, 0.9, 1.0, 0.55], [0, 1, 1, 1, 0], bins=2)
    # below 0.5: mean 0.1, rate 1/2; above: mean 2.45/3, rate 2/3
    assert [one.count for one in found.bins] == [2, 3]
    assert found.bins[0].rate == 0.5 and found.bins[1].probability == pytest.approx(2.45 / 3)
    assert found.ece == pytest.approx((2 * 0.4 + 3 * abs(2.45 / 3 - 2 / 3)) / 5)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0 + 0.55**2) / 5)
    assert (found.n, found.base_rate) == (5, 0.6)
    empty = calibrate([0.05], [0]).bins[9]
    assert (empty.count, empty.rate, empty.probability) == (0, None, None)


def test_calibrated_predictions_have_a_small_error():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    assert calibrate(p, rng.random(len(p)) < p).ece < 0.01
    assert calibrate(p, np.ones(len(p), int)).ece == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [([1.2], [1], "1.2"), ([math.nan], [1], "nan"), ([0.5], [2], "0 or 1"), ([], [], "shape")],
)
def test_what_is_no_probability_is_refused(p, y, message):
    with pytest.raises(ValueError, match=message):
        calibrate(p, y)
