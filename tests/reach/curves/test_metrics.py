import dataclasses

import pytest

from llmctl.reach.curves.metrics import curve_metrics
from llmctl.reach.curves.recipe import CurveRecipe
from tests.reach.curves.build import make_pair

RECIPE = CurveRecipe.model_validate({"search": {"max_k": 2}})
PAIRS = [make_pair(0, 0), make_pair(1, 1), make_pair(2, 2), make_pair(3, None, error="NaN")]


def test_counts_are_those_of_the_pairs():
    metrics = curve_metrics(RECIPE, PAIRS, [], 12.345)
    assert [metrics["epsilon"][k]["value"] for k in "012"] == [0.75, 0.5, 0.25]
    assert metrics["backward_tokens"] == 20 and metrics["seconds"] == 12.3
    assert metrics["roundtrips"] == {"yes": 1, "of": 2}  # of the pairs with a control, number 2
    assert metrics["by_length"] == {"2": {"pairs": 4, "reached": 3}}
    assert metrics["errors"] == [{"id": "3/0", "error": "NaN"}]
    assert metrics["frequent_tokens"][0] == {"token": 7, "text": "<7>", "pairs": 2}
    assert "baseline" not in metrics


def test_the_difference_from_random_controls_has_an_interval_even_where_no_pair_differs():
    found = [pair.pair() for pair in PAIRS]
    same = curve_metrics(RECIPE, PAIRS, found, 1.0)["baseline"]["search_minus_random"]
    assert same.value == 0 and same.low < 0 < same.high
    none = [make_pair(number, None).pair() for number in range(4)]
    better = curve_metrics(RECIPE, PAIRS, none, 1.0)["baseline"]["search_minus_random"]
    assert better.value == pytest.approx(-0.75) and -1 <= better.low < better.value < better.high <= 1


def test_one_state_gives_no_interval():
    pairs = [make_pair(number, 1, state=5) for number in range(3)]
    metrics = curve_metrics(RECIPE, pairs, [pair.pair() for pair in pairs], 1.0)
    assert metrics["baseline"]["search_minus_random"] is None


def test_witnesses_that_were_checked_again_are_counted_by_place():
    marked = [dataclasses.replace(pair, rechecks={"bfloat16": pair.result.k == 1}) for pair in PAIRS[1:3]]
    assert curve_metrics(RECIPE, marked, [], 1.0)["rechecks"] == {"bfloat16": {"holds": 1, "of": 2}}
