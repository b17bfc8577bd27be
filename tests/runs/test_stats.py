import json
import math
import tracemalloc

import numpy as np
import pytest

from llmctl.runs import stats
from llmctl.runs.stats import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_rate,
    paired_bootstrap,
    student_mean,
    wilson,
)


def test_wilson_at_five_of_ten():
    # z² = 3.84146; the centre is 1/2 by symmetry; half = z √(0.25/10 + z²/400) / (1 + z²/10)
    #   = 1.959964 √(0.025 + 0.00960365) / 1.384146 = 1.959964 * 0.1860206 / 1.384146 = 0.263407
    estimate = wilson(5, 10)
    assert (estimate.value, estimate.n) == (0.5, 10)
    assert estimate.low == pytest.approx(0.5 - 0.263407, abs=1e-6)
    assert estimate.high == pytest.approx(0.5 + 0.263407, abs=1e-6)


def test_wilson_with_no_success_has_a_bound_above_zero():
    # With p = 0 the upper bound is z²/n / (1 + z²/n) = z² / (n + z²) = 3.84146 / 13.84146.
    estimate = wilson(0, 10)
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(3.841459 / 13.841459, abs=1e-6)


def test_wilson_is_symmetric():
    for successes in range(8):
        one, other = wilson(successes, 7), wilson(7 - successes, 7)
        assert one.low == pytest.approx(1 - other.high)


def test_wilson_covers():
    # Exact coverage: the binomial mass of the counts whose interval holds p.
    for n, rate in [(10, 0.3), (30, 0.05), (100, 0.5), (200, 0.9)]:
        mass, probability = 0.0, (1 - rate) ** n
        for successes in range(n + 1):
            estimate = wilson(successes, n)
            mass += probability * (estimate.low <= rate <= estimate.high)
            probability *= (n - successes) / (successes + 1) * rate / (1 - rate)
        assert 0.92 < mass < 0.99


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_counts_that_do_not_fit_are_refused(successes, n):
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(successes, n)


def test_without_examples_nothing_is_claimed_and_the_json_is_valid():
    for estimate in (wilson(0, 0), bootstrap_mean([]), paired_bootstrap([], []), clustered_rate({})):
        assert (estimate.value, estimate.low, estimate.high, estimate.n) == (None, None, None, 0)
        json.dumps(estimate.to_dict(), allow_nan=False)
    assert str(wilson(0, 0)) == "no value, n = 0"


def test_one_unit_has_no_interval():
    assert bootstrap_mean([2.0]) == Estimate(2.0, None, None, 1)
    assert bootstrap_mean([1.0, 3.0], clusters=["a", "a"]) == Estimate(2.0, None, None, 2, 1)
    assert clustered_rate([[1, 0]]) == Estimate(0.5, None, None, 2, 1)
    assert str(bootstrap_mean([2.0])) == "2.000 (no interval), n = 1"


def test_an_estimate_in_words_and_as_json():
    assert str(Estimate(0.48, 0.4123, 0.549, 200)) == "0.480 [0.412, 0.549], n = 200"
    assert str(Estimate(0.5, 0.1, 0.9, 20, 4)) == "0.500 [0.100, 0.900], n = 20 in 4"
    assert Estimate(0.5, 0.1, 0.9, 20).to_dict() == {"value": 0.5, "low": 0.1, "high": 0.9, "n": 20}
    assert Estimate(0.5, 0.1, 0.9, 20, 4).to_dict()["clusters"] == 4


def test_bootstrap_of_two_values_has_its_known_distribution():
    # Two values 0 and 1: a resample's mean is 0, 1/2, 1 with 1/4, 1/2, 1/4, so the percentiles are 0 and 1.
    assert bootstrap_mean([0.0, 1.0], seed=1) == Estimate(0.5, 0.0, 1.0, 2)


def test_bootstrap_agrees_with_the_normal_interval_where_that_is_right():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    estimate = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_drawing_equal_values_by_their_counts_gives_the_same_interval(monkeypatch):
    values = np.repeat([0.0, 1.0], [700, 300])
    by_counts = bootstrap_mean(values)
    # Tiny differences make every value a kind of its own, so that indices are drawn.
    by_index = bootstrap_mean(values + np.arange(1000) * 1e-12)
    assert by_counts.low == pytest.approx(by_index.low, abs=0.003)
    assert by_counts.high == pytest.approx(by_index.high, abs=0.003)


def test_values_copied_within_clusters_add_no_certainty():
    values = np.random.default_rng(0).normal(size=40)
    copied = bootstrap_mean(np.repeat(values, 10), clusters=np.repeat(np.arange(40), 10).tolist())
    alone = bootstrap_mean(values)
    assert (copied.n, copied.clusters) == (400, 40)
    assert copied.low == pytest.approx(alone.low) and copied.high == pytest.approx(alone.high)
    assert bootstrap_mean(np.repeat(values, 10)).high < alone.high  # what pretending they are new would say


def test_bootstrap_memory_does_not_grow_with_resamples_times_values(monkeypatch):
    monkeypatch.setattr(stats, "_DRAWS_AT_ONCE", 1 << 16)
    values = np.random.default_rng(0).normal(size=3000)  # 10,000 x 3,000 indices would be 240 MB
    tracemalloc.start()
    bootstrap_mean(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_paired_bootstrap_cancels_what_pairs_share():
    rng = np.random.default_rng(0)
    common = rng.normal(scale=10.0, size=200)
    a, b = common + 1.0 + rng.normal(scale=0.1, size=200), common + rng.normal(scale=0.1, size=200)
    estimate = paired_bootstrap(a, b, seed=0)
    assert 0.9 < estimate.low < 1.0 < estimate.high < 1.1
    swapped = paired_bootstrap(b, a, seed=0)
    assert swapped.value == pytest.approx(-estimate.value)


def test_values_that_are_not_finite_or_do_not_pair_are_refused():
    with pytest.raises(ValueError, match=r"values\[1\] is nan"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(ValueError, match="a has 1 values and b has 2"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="2 values but 1 clusters"):
        bootstrap_mean([1.0, 2.0], clusters=["a"])
    with pytest.raises(ValueError, match="0 or 1"):
        clustered_rate([[0, 2]])


def test_the_students_quantile_is_near_the_tables():
    # Tables of Student's t, two-sided 95 %.
    for degrees, value in [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042)]:
        assert stats.student_quantile(degrees) == pytest.approx(value, rel=2e-3)


def test_a_rate_over_independent_examples_is_near_wilsons():
    outcomes = np.random.default_rng(0).random(500) < 0.3
    clustered, plain = clustered_rate([[one] for one in outcomes]), wilson(int(outcomes.sum()), 500)
    assert clustered.value == plain.value
    assert clustered.low == pytest.approx(plain.low, abs=1e-3)
    assert clustered.high == pytest.approx(plain.high, abs=1e-3)


def test_equal_outcomes_within_clusters_count_as_one_each():
    # 20 clusters of 10 equal outcomes: residuals are 10 (y - p), so variance = 20/19 * p(1-p)/20 = p(1-p)/19,
    # and the effective number is 19; t with 19 degrees of freedom is 2.093.
    estimate = clustered_rate({number: [number < 8] * 10 for number in range(20)})
    low, high = stats.wilson_bounds(0.4, 19, 2.093)
    assert (estimate.value, estimate.n, estimate.clusters) == (0.4, 200, 20)
    assert estimate.low == pytest.approx(low, abs=1e-3) and estimate.high == pytest.approx(high, abs=1e-3)


def test_all_successes_in_few_clusters_leave_room_below():
    estimate = clustered_rate([[1] * 100, [1] * 100, [1] * 100])
    assert estimate.high == 1.0 and estimate.low < 0.4
    assert wilson(300, 300).low > 0.98  # what pretending they are independent would say


@pytest.mark.parametrize(("clusters", "rate", "likeness"), [(10, 0.3, 0.5), (30, 0.5, 0.2), (20, 0.1, 0.05)])
def test_the_clustered_interval_covers(clusters, rate, likeness):
    rng = np.random.default_rng(5)
    strength = (1 - likeness) / likeness  # beta-binomial outcomes, correlated by `likeness` within a cluster
    trials, hits = 600, 0
    for _ in range(trials):
        rates = rng.beta(rate * strength, (1 - rate) * strength, size=clusters)
        estimate = clustered_rate([rng.random(int(rng.integers(3, 12))) < one for one in rates])
        hits += estimate.low <= rate <= estimate.high
    assert 0.92 <= hits / trials <= 0.995


def test_the_cluster_bootstrap_covers():
    rng = np.random.default_rng(5)
    trials, hits = 200, 0
    clusters = np.repeat(np.arange(40), 5).tolist()
    for _ in range(trials):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(size=200)
        estimate = bootstrap_mean(values, clusters, seed=0, resamples=1000)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.89 <= hits / trials <= 0.99


def test_students_interval_is_that_of_tables():
    # t(0.975) is 12.706 with 1 degree of freedom, 4.303 with 2 and 3.182 with 3 (any table)
    for values, t in (([1.0, 3.0], 12.706), ([1.0, 2.0, 3.0], 4.303), ([1.0, 2.0, 3.0, 4.0], 3.182)):
        found = student_mean(values)
        half = t * np.std(values, ddof=1) / len(values) ** 0.5
        assert found.value == pytest.approx(np.mean(values)) and found.n == len(values)
        assert (found.high - found.value, found.value - found.low) == pytest.approx((half, half), rel=2e-3)
    assert student_mean([2.0]) == Estimate(2.0, None, None, 1)
    assert student_mean([]) == Estimate(None, None, None, 0)


def test_a_ratio_with_units_of_one_size_is_the_mean_of_their_means():
    means = np.random.default_rng(3).normal(2.0, 0.5, 40)
    ratio, plain = bootstrap_ratio(means * 5, np.full(40, 5)), bootstrap_mean(means)
    assert ratio.n == 40 and ratio.value == pytest.approx(plain.value)
    assert (ratio.low, ratio.high) == pytest.approx((plain.low, plain.high))
    assert bootstrap_ratio([6.0, 2.0], [3, 1]).value == 2.0  # 8 over 4
    assert bootstrap_ratio([6.0], [3]) == Estimate(2.0, None, None, 1)
    with pytest.raises(ValueError, match="2 sums but 1 sizes"):
        bootstrap_ratio([1, 2], [1])


def test_wilson_gives_the_published_interval():
    # 4,858 of 5,000 pairs solved: 97.16 %, interval 96.7 to 97.6 %
    found = wilson(4858, 5000)
    assert [round(100 * v, 1) for v in (found.value, *found.bounds())] == [97.2, 96.7, 97.6]
    assert wilson(0, 10).bounds() == (0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10).bounds() == (pytest.approx(0.7225, abs=1e-4), 1)
    with pytest.raises(ValueError, match="no interval"):
        wilson(0, 0).bounds()


def test_wilson_is_that_of_scipy():
    from scipy.stats import binomtest

    for successes, n in [(0, 7), (3, 7), (7, 7), (123, 4567)]:
        expected = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n).bounds() == pytest.approx(tuple(expected), abs=1e-12)


def test_a_rate_by_state_counts_equal_outcomes_of_a_state_as_one_trial():
    # Ten states of ten equal outcomes each, half of them solved. The cluster variance is
    # 10/9 * 10 * (10 * 0.5)^2 / 100^2 = 1/36; binomial 0.25/100; so 100 pairs count as 9.
    outcomes, states = [number < 50 for number in range(100)], [number // 10 for number in range(100)]
    expected = stats.wilson_bounds(0.5, 9, stats.student_quantile(9))
    assert stats.rate_by_state(outcomes, states).bounds() == pytest.approx(expected, abs=1e-12)
    # Where all outcomes are equal, the states stand for the trials.
    equal = stats.rate_by_state([True] * 40, [n // 10 for n in range(40)])
    low, high = stats.wilson_bounds(1.0, 4, stats.student_quantile(3))
    assert equal == Estimate(1.0, low, high, 40, 4)


def test_a_rate_by_state_is_wilsons_without_shared_states_and_open_with_one_state():
    assert stats.rate_by_state([True, False, True, True], "abcd").bounds() == wilson(3, 4).bounds()
    assert stats.rate_by_state([True, False], "aa") == Estimate(0.5, 0.0, 1.0, 2, 1)
    with pytest.raises(ValueError, match="0 outcomes"):
        stats.rate_by_state([], [])


def test_a_clustered_mean_has_the_robust_variance():
    # Mean 0.5; residuals of the clusters -0.5 * 3 + 1 = -0.5 and 0.5, so the variance is
    # 2/1 * (0.25 + 0.25) / 6^2 = 1/36, and t with one degree of freedom is tan(0.475 pi).
    found = stats.clustered_mean([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], "aaabbb")
    half = math.tan(0.475 * math.pi) / 6
    assert (found.value, found.n, found.clusters) == (0.5, 6, 2)
    assert found.bounds() == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)
    assert stats.clustered_mean([1.0, 2.0], "aa") == Estimate(1.5, None, None, 2, 1)
    assert stats.clustered_mean([], "") == Estimate(None, None, None, 0, 0)


def test_the_rank_correlation_handles_ties_and_constants():
    assert stats.rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1, abs=1e-12)
    # ranks of the second are 0.5, 0.5, 2: covariance 1.5, spread sqrt(2 * 1.5)
    assert stats.rank_correlation([1, 2, 3], [5, 5, 9]) == pytest.approx(1.5 / math.sqrt(3), abs=1e-12)
    assert stats.rank_correlation([1, 2, 3], [4, 4, 4]) is None
