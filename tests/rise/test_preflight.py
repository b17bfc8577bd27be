"""Mistakes in a recipe are found before a run's folder is made."""

import pytest

from llmctl.errors import UserError
from llmctl.rise.preflight import check_inputs
from llmctl.rise.recipe import RiseRecipe

from .runs import tiny_recipe


def recipe(folder, **changes):
    content = tiny_recipe(folder) | changes
    del content["kind"]
    return RiseRecipe.model_validate(content)


def test_the_tasks_of_a_good_recipe_come_back(tiny_model):
    tasks = check_inputs(recipe(tiny_model))
    assert tasks.training is tasks.test and tasks.training.name == "sort"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no/such/folder"}, "no/such/folder"),
        ({"sampler": {"engine": "transformers", "options": {"max_bach": 2}}}, "did you mean 'max_batch'"),
        ({"adapter": "no-adapter"}, "adapter"),
        ({"launch": "no-such.yaml"}, "launch is no-such.yaml, but there is no such file"),
        ({"sampler": {"engine": "server"}}, "a server cannot load what an iteration trains"),
        ({"task": {"name": "gsm8k", "path": "no-such-file"}}, "no file or folder at no-such-file"),
    ],
)
def test_each_mistake_is_one_line_that_names_it(tiny_model, changes, message):
    with pytest.raises(UserError) as error:
        check_inputs(recipe(tiny_model, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_split_without_problems_is_refused(tiny_model, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="empty.jsonl|gave no train problems"):
        check_inputs(recipe(tiny_model, task={"name": "jsonl", "path": str(tmp_path / "empty.jsonl")}))


def test_full_fine_tuning_does_not_start_from_an_adapter(tiny_model, monkeypatch):
    monkeypatch.setattr("llmctl.rise.preflight.check_adapter", lambda path, name: None)
    with pytest.raises(UserError, match="adapter is given and train.adapter is full, .*: merge the adapter"):
        check_inputs(recipe(tiny_model, adapter="an-adapter", train={"adapter": "full"}))
