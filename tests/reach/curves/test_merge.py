"""Which shards fit together, from folders made by hand; whole merges are tested in test_run.py."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.merge import merge_runs
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.runs import Run


def make_shard(folder, index, of=2, **changes):
    content = {"shard": {"index": index, "of": of}, "baseline": "none", "states": {"count": 2}} | changes
    recipe = CurveRecipe.model_validate(content)
    with Run.open(folder, recipe, "reach curve") as run:
        run.pin(model_fingerprint="same")
        run.write_json("plan.json", [f"{index}/0"])
        run.journal("pairs").append(f"{index}/0", {"id": f"{index}/0"})
        run.journal("timing").append(f"{index}/0 x1", {"seconds": 1.0})
    return folder


def test_the_shards_of_a_curve_give_its_recipe_and_all_records(tmp_path):
    recipe, journals = merge_runs([make_shard(tmp_path / name, i) for i, name in enumerate("ab")])
    assert recipe.shard.of == 1
    assert [line["id"] for line in journals["pairs"]] == ["0/0", "1/0"] and len(journals["timing"]) == 2


def test_a_shard_that_is_missing_twice_there_or_foreign_is_refused(tmp_path):
    first, second = make_shard(tmp_path / "a", 0), make_shard(tmp_path / "b", 1)
    with pytest.raises(UserError, match="shard 1 of 2 is missing"):
        merge_runs([first])
    with pytest.raises(UserError, match="shard 0 is there twice"):
        merge_runs([first, second, first])
    other = make_shard(tmp_path / "c", 1, search={"max_k": 2})
    with pytest.raises(UserError, match="is of another curve"):
        merge_runs([first, other])
    third = make_shard(tmp_path / "d", 1, of=3)
    with pytest.raises(UserError, match="is one of 3 shards"):
        merge_runs([first, third])


def test_an_unfinished_shard_is_refused(tmp_path):
    first, second = make_shard(tmp_path / "a", 0), make_shard(tmp_path / "b", 1)
    (second / "plan.json").write_text(json.dumps(["1/0", "3/0"]))
    with pytest.raises(UserError, match=r"lacks 1 of 2 pairs \(first: 3/0\)"):
        merge_runs([first, second])
