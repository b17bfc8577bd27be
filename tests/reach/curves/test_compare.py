"""What a comparison says, from records made by hand; its runs are tested in test_run.py."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.compare import _difference, read_pair_file
from llmctl.reach.curves.compare_recipe import CurveComparisonRecipe
from llmctl.reach.curves.compare_records import CurveComparison
from llmctl.reach.curves.compare_report import comparison_sentences, comparison_table
from llmctl.runs import Estimate
from llmctl.runs.files import to_json
from tests.reach.curves.build import make_pair


def comparison(first, second):
    one = {"1": Estimate(0.5, 0.2, 0.8, len(first), len(first))}
    difference = _difference([p.pair() for p in first], [p.pair() for p in second], [0, 1])
    return CurveComparison(
        "base", len(first), len(first), {"base": one, "tuned": one}, {"base": 10, "tuned": 2000},
        {"tuned": difference}, {"tuned": ["search.effort: 1.0 is 2.0"]},
    )  # fmt: skip


def test_equal_curves_are_neither_harder_nor_easier_and_have_an_interval():
    pairs = [make_pair(number, number % 2) for number in range(4)]
    found = comparison(pairs, pairs)
    assert found.differences["tuned"].epsilon["1"].low < 0 < found.differences["tuned"].epsilon["1"].high
    said = comparison_sentences(found)
    assert said[0].startswith("tuned is neither harder nor easier, by this sample, to control than base")
    assert "tuned was searched with other settings: search.effort: 1.0 is 2.0." in said
    assert said[-1] == "Forward tokens spent: base 10, tuned 2,000."


def test_a_curve_that_lost_all_pairs_is_harder_within_the_possible():
    first, second = ([make_pair(n, k) for n in range(12)] for k in (1, None))
    found = comparison(first, second)
    last = found.differences["tuned"].epsilon["1"]
    assert (last.value, last.high) == (1.0, 1.0) and 0.5 < last.low < 1
    assert (found.differences["tuned"].gained, found.differences["tuned"].lost) == (0, 12)
    assert comparison_sentences(found)[0].startswith("tuned is harder to control than base")
    assert found.differences["tuned"].k is None  # no pair was reached by both


def test_lengths_that_never_differ_have_no_interval():
    first = [make_pair(n, 1) for n in range(3)]
    assert comparison(first, first).differences["tuned"].k == Estimate(0.0, None, None, 3)


def test_one_state_gives_no_interval():
    pairs = [make_pair(n, 1, state=4) for n in range(3)]
    found = comparison(pairs, pairs)
    assert found.differences["tuned"].epsilon == {"0": None, "1": None}
    assert "one state alone gives no interval" in comparison_sentences(found)[0]


def test_a_comparison_is_json_and_a_table():
    pairs = [make_pair(number, 1) for number in range(3)]
    found = comparison(pairs, pairs)
    entry = json.loads(to_json(found))
    assert list(entry) == [
        "reference",
        "pairs",
        "states",
        "curves",
        "forward_tokens",
        "differences",
        "recipes",
    ]
    assert set(entry["differences"]["tuned"]) == {"epsilon", "gained", "lost", "k"}
    assert set(entry["differences"]["tuned"]["epsilon"]["1"]) == {"value", "low", "high", "n"}
    assert comparison_table(found).columns == ["k", "base", "tuned", "tuned - base"]


def test_an_unfinished_curve_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no pairs\.jsonl"):
        read_pair_file(tmp_path)


def test_names_of_arms_become_folders_and_the_others_take_over_the_pairs(tmp_path):
    with pytest.raises(ValueError, match="arms has the name 'a/b'"):
        CurveComparisonRecipe.model_validate({"arms": {"a/b": {}, "c": {}}})
    recipe = CurveComparisonRecipe.model_validate({"arms": {"a": {"model": "m"}, "b": {"model": "n"}}})
    assert recipe.curve("a", None).model == "m" and recipe.curve("a", None).states == recipe.states
    assert recipe.curve("b", tmp_path / "pairs.jsonl").states.pairs == tmp_path / "pairs.jsonl"
