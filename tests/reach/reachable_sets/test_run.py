import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.reachable_sets.recipe import SetRecipe
from llmctl.reach.reachable_sets.run import check_state, find_set


def test_a_set_in_a_folder_is_that_without_one_and_is_not_searched_again(tiny_model, tmp_path):
    recipe = SetRecipe.model_validate(
        {"model": str(tiny_model), "state": "ab", "controls": {"sample": 30}, "seed": 1}
    )
    alone = find_set(recipe, None, quiet=True)
    kept = find_set(recipe, tmp_path / "run", quiet=True)
    assert json.loads(json.dumps(alone)) == kept == find_set(recipe, tmp_path / "run", quiet=True)
    assert alone["state_text"] == "ab" and len(alone["reached"]) >= 1
    assert (tmp_path / "run/report.html").is_file()


def test_a_state_that_its_position_cannot_take_is_refused_before_there_is_a_folder(tmp_path):
    recipe = SetRecipe.model_validate({"state": "no JSON", "controls": {"position": "template"}})
    with pytest.raises(UserError, match="needs a JSON conversation"):
        check_state(recipe)
    with pytest.raises(UserError, match="needs a JSON conversation"):
        find_set(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
