import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import (
    Pair,
    epsilon_by_tokens,
    epsilon_curve,
    epsilon_difference,
    summarize,
)


def pair(number, k, state=None, method="gcg", **fields):
    method = "base" if k == 0 else method
    return Pair(f"p{number}", state or f"s{number}", k, method, base_loss=float(number), **fields)


PAIRS = [pair(0, 0), pair(1, 1, method="greedy"), pair(2, 1, method="greedy"), pair(3, 4), pair(4, None)]


def test_epsilon_is_the_fraction_not_reached_with_at_most_k_tokens():
    points = {point.at: point for point in epsilon_curve(PAIRS, range(5))}
    assert [points[k].value for k in range(5)] == [0.8, 0.4, 0.4, 0.4, 0.2]
    assert all(point.low <= point.value <= point.high for point in points.values())
    assert points[4].n == points[4].clusters == 5


def test_a_step_by_another_method_is_marked():
    points = epsilon_curve(PAIRS, [0, 1, 2, 4])
    assert [point.is_switch for point in points] == [False, False, False, True]
    assert points[3].methods == {"gcg": 1}


def test_epsilon_by_tokens_counts_what_was_solved_within_the_budget():
    pairs = [pair(0, 0, forward_tokens=10), pair(1, 2, forward_tokens=100), pair(2, None, forward_tokens=50)]
    assert [point.value for point in epsilon_by_tokens(pairs, [5, 10, 99, 100])] == pytest.approx(
        [1, 2 / 3, 2 / 3, 1 / 3]
    )


def test_the_summary_is_json_with_value_low_high_n_and_clusters():
    entry = json.loads(json.dumps(summarize(PAIRS, range(5)), allow_nan=False))
    assert {"value", "low", "high", "n", "clusters"} <= entry["epsilon"]["4"].keys()
    assert entry["pairs"] == 5 and entry["states"] == 5
    assert entry["solved_by"] == {"base": 1, "greedy": 2, "gcg": 1}


def test_the_most_frequent_control_tokens_are_counted():
    pairs = [pair(0, 2, control_ids=(7, 8)), pair(1, 2, control_ids=(7, 9)), pair(2, None, control_ids=(9,))]
    assert summarize(pairs)["frequent_tokens"][0] == (7, 2)


def test_a_comparison_is_paired_and_clustered():
    first = [pair(n, 1, state=f"s{n // 2}") for n in range(6)]
    second = [pair(n, 1 if n < 3 else None, state=f"s{n // 2}") for n in range(6)]
    interval = epsilon_difference(first, second, 1)
    assert interval.value == pytest.approx(0.5)  # the second fails on three of six that the first solves
    assert -1 <= interval.low < 0.5 < interval.high <= 1
    with pytest.raises(UserError, match="differ in 1 pairs"):
        epsilon_difference(first, second[:-1], 1)
    alone = [pair(n, 1, state="s") for n in range(2)]
    with pytest.raises(UserError, match="1 states give no interval"):
        epsilon_difference(alone, alone, 1)


def test_a_pair_given_twice_is_refused():
    with pytest.raises(UserError, match="1 pairs are there twice .first: 'p0'"):
        epsilon_curve([*PAIRS, PAIRS[0]])


def test_a_curve_of_nothing_is_refused():
    with pytest.raises(UserError, match="no pairs"):
        epsilon_curve([])


def test_a_result_becomes_a_pair(small_model, letters):
    from llmctl.reach import Problem, solve
    from tests.reach.oracle import STATE

    result = solve(small_model, letters, Problem(state=STATE, target=[9]), max_k=2)
    entry = json.loads(json.dumps(result.to_dict(with_path=False)))
    made = Pair.from_result(entry)
    assert (made.k, made.method, made.base_rank) == (result.k, result.method, result.base_rank)
    assert made.state == "5 17 3 28" and made.id.endswith("|9")
