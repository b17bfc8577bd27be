"""Comparing the last evaluations of two runs."""

import json

import pytest
import yaml

from llmctl.errors import UserError
from llmctl.rise.compare import compare_runs
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs.recipe import recipe_content

from .helpers import record


def make(folder, stages, finished=None, **recipe):
    (folder / "journal").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_content(RiseRecipe(**recipe))))
    for stage, records in stages.items():
        lines = [
            {"key": f"chunk-{i}", "records": [r.to_dict() for r in records[i : i + 2]]}
            for i in range(0, len(records), 2)
        ]
        path = folder / f"journal/evaluate-{stage}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = stages if finished is None else finished
    lines = [{"key": f"evaluate-{stage}", "problems": 3} for stage in done]
    (folder / "journal/finished.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


BAD = [record("WWWWW", "WWW", str(i)) for i in range(3)]
HALF = [record("RRWWW", "WRR", str(i)) for i in range(3)]
GOOD = [record("RRRRR", "RRR", str(i)) for i in range(3)]


def test_it_is_second_minus_first_of_the_last_whole_evaluations(tmp_path):
    three = {"turns": 3}
    one = make(tmp_path / "one", {0: BAD, 1: HALF}, seed=1, evaluate=three)
    two = make(
        tmp_path / "two", {0: BAD, 2: GOOD, 10: GOOD}, finished=[0, 2], iterations=10, seed=2, evaluate=three
    )
    found = compare_runs(one, two)
    assert (found["stages"], found["n"]) == ([1, 2], 3)
    assert found["figures"]["m1_t1"].value == pytest.approx(0.6)
    assert found["figures"]["compute_matched_gain"].value == pytest.approx(0 - 1)
    assert found["figures"]["p1_t3"].value == 0
    assert found["differences"] == ["iterations 1 -> 10", "seed 1 -> 2"]


def test_a_run_against_itself_differs_in_nothing(tmp_path):
    one = make(tmp_path / "one", {0: HALF})
    found = compare_runs(one, one)
    assert {figure.value for figure in found["figures"].values()} == {0.0} and found["differences"] == []


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"task": {"name": "gsm8k"}}, "evaluated differently .task: name 'sort' -> 'gsm8k'"),
        ({"evaluate": {"turns": 3}}, "evaluated differently .evaluate: turns 5 -> 3"),
        ({"sampling": {"temperature": 0.1}}, "evaluated differently .sampling: temperature 0.7 -> 0.1"),
    ],
)
def test_other_conditions_are_refused(tmp_path, other, match):
    one, two = make(tmp_path / "one", {0: BAD}), make(tmp_path / "two", {0: BAD}, **other)
    with pytest.raises(UserError, match=match):
        compare_runs(one, two)


def test_what_counts_is_the_sampling_of_the_evaluation(tmp_path):
    one = make(tmp_path / "one", {0: BAD}, sampling={"temperature": 0.3})
    two = make(tmp_path / "two", {0: GOOD}, evaluate={"sampling": {"temperature": 0.3}})
    assert compare_runs(one, two)["figures"]["m1_t1"].value == 1
    assert compare_runs(two, one)["figures"]["m1_t1"].value == -1


def test_other_problems_are_refused(tmp_path):
    one, two = make(tmp_path / "one", {0: BAD}), make(tmp_path / "two", {0: BAD[:2]})
    with pytest.raises(
        UserError, match="cannot be compared: the two evaluations are not of the same problems"
    ):
        compare_runs(one, two)


def test_folders_that_are_no_evaluated_rise_run_are_refused(tmp_path):
    good = make(tmp_path / "good", {0: BAD})
    with pytest.raises(UserError, match="none is no run: give the folder of a finished"):
        compare_runs(good, tmp_path / "none")
    torn = make(tmp_path / "torn", {0: BAD}, finished=[])
    with pytest.raises(UserError, match="torn has no evaluation yet"):
        compare_runs(good, torn)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/recipe.yaml").write_text("kind: reach\n")
    with pytest.raises(UserError, match="is a run of kind 'reach', but two RISE runs are needed"):
        compare_runs(good, tmp_path / "other")
