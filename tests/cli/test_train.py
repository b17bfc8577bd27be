"""`llmctl train sft`: JSON, dry runs, and mistakes in one line before there is a folder."""

import json

import pytest
import yaml

from llmctl.runs import list_recipes, load_recipe
from llmctl.training.recipe import SftRecipe

RECIPE = {
    "kind": "sft",
    "data": {"rows": 8, "validation_rows": 4},
    "train": {"learning_rate": 1e-2, "batch_size": 4, "epochs": 2},
}


@pytest.fixture
def recipe(tiny_model, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": str(tiny_model)}))
    return str(path)


def test_json_is_the_metrics_and_text_is_a_table(llmctl, recipe, tmp_path):
    with_run = ("--run", str(tmp_path / "run"))
    done = llmctl("train", "sft", recipe, *with_run, "--json")
    assert done.code == 0 and json.loads(done.out) == json.loads((tmp_path / "run/metrics.json").read_text())
    again = llmctl("train", "sft", recipe, *with_run)  # finished: nothing is trained again
    assert again.code == 0 and "perplexity" in again.out and "Validation loss changed by" in again.out


def test_a_dry_run_counts_rows_and_steps_and_makes_nothing(llmctl, recipe, tmp_path):
    done = llmctl("train", "sft", recipe, "--run", str(tmp_path / "run"), "--dry-run", "--json")
    work = json.loads(done.out)["work"]
    assert work == {"training rows": 8, "validation rows": 4, "steps on one device, at most": 4}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.path=nowhere.jsonl", "no file or folder at nowhere.jsonl"),
        ("data.validation_rows=-1", "data.validation_rows"),
        ("train.adaptor=full", "did you mean 'train.adapter'"),
        ("architecture.attention=gnn", "it should be 'plain', 'gin' or 'pna'"),
        ("model=no/where", "no/where"),
    ],
)
def test_a_mistake_is_one_line_and_no_folder(llmctl, recipe, tmp_path, change, message):
    done = llmctl("train", "sft", recipe, "--run", str(tmp_path / "run"), "--set", change)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and done.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("sft/")])
def test_every_recipe_that_comes_along_is_valid(name):
    assert load_recipe(SftRecipe, name).data.validation_rows > 0
