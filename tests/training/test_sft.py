"""Plain fine-tuning as a run: every kind of data and adapter, validation by pass, kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.models.loading import load
from llmctl.runs.recipe import parse_recipe
from llmctl.training.data import prepare
from llmctl.training.data.rows import read_rows
from llmctl.training.preflight import check_sft
from llmctl.training.recipe import SftRecipe
from llmctl.training.validation import row_losses

from .runs import facts, run_sft_in, sft_recipe


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("sft") / "whole"
    run_sft_in(folder, sft_recipe(tiny_model))
    return folder


def test_losses_by_pass_are_those_of_the_saved_model_and_of_the_steps(whole, tiny_model):
    metrics = json.loads((whole / "metrics.json").read_text())
    assert [line["pass"] for line in metrics["passes"]] == [1, 2]
    assert [line["steps"] for line in metrics["passes"]] == [3, 6]
    assert metrics["passes"][1]["training_loss"] == pytest.approx(sum(metrics["losses"][3:]) / 3)
    loaded = load(tiny_model, adapter=whole / "model")
    data = prepare(read_rows(whole / "data/validation.jsonl"), loaded.tokenizer)
    exact = row_losses(loaded.model, data, 2).loss
    assert metrics["passes"][-1]["validation_loss"] == pytest.approx(exact, rel=1e-5)
    assert metrics["after"]["validation_loss"]["value"] == pytest.approx(exact, rel=1e-5)
    change = metrics["after"]["validation_loss"]["value"] - metrics["before"]["validation_loss"]["value"]
    assert metrics["change"]["value"] == pytest.approx(change) and metrics["change"]["high"] < 0


def test_the_report_says_what_happened_and_shows_it(whole):
    text = (whole / "report.md").read_text()
    assert "it fell, and the interval over validation rows excludes zero" in text
    assert "12 training rows, 5 held out" in text and "figures/loss.png" in text
    assert not list(whole.rglob("checkpoint*"))


@pytest.mark.slow
def test_killed_at_steps_of_both_passes_a_run_ends_as_an_unbroken_one(whole, tiny_model, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(sft_recipe(tiny_model)))
    command = [sys.executable, str(Path(__file__).with_name("runs.py")), "sft"]
    command += [str(tmp_path / "recipe.json"), str(tmp_path / "run"), "model:2", "model:5"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert json.loads(done.stdout or "0") == [-signal.SIGKILL, -signal.SIGKILL, 0], done.stderr
    assert facts(tmp_path / "run") == facts(whole)


def test_a_graph_model_from_scratch_learns_packed_text(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(f"the same words again {n % 3}" for n in range(40)))
    content = sft_recipe(
        "nowhere", data={"path": str(tmp_path / "text.txt"), "block": 32, "validation_rows": 8}
    )
    content["architecture"] = {"attention": "gin", "hidden_size": 32, "layers": 1, "tokenizer": "bytes"}
    content["data"]["rows"] = 24
    content["train"] |= {"adapter": "full", "loss_on": "all"}
    with pytest.raises(UserError, match="every training row repeats a validation row"):
        run_sft_in(tmp_path / "run", content)
    (tmp_path / "text.txt").write_text("\n\n".join(f"the same words again {n}" for n in range(40)))
    metrics = run_sft_in(tmp_path / "run2", content)
    assert metrics["change"].high < -0.1
    assert load(tmp_path / "run2/model").model.config.model_type == "graph_llama"


def test_sparse_gin_is_trained_without_validation_rows(tiny_model, tmp_path):
    content = sft_recipe(tiny_model, data={"rows": 4, "validation_rows": 0})
    content["train"] |= {"adapter": "sparse-gin", "gin": {"width": 4}, "epochs": 1}
    metrics = run_sft_in(tmp_path / "run", content)
    assert "change" not in metrics and metrics["passes"] == [
        {"pass": 1.0, "steps": 1, "training_loss": metrics["losses"][0]}
    ]
    assert json.loads((tmp_path / "run/model/adapter_config.json").read_text())["peft_type"] == "SPARSE_GIN"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nowhere/at-all"}, "nowhere/at-all"),
        ({"adapter": "nowhere"}, "adapter is nowhere, which has no adapter_config.json"),
        ({"launch": "nowhere.yaml"}, "launch is nowhere.yaml, but there is no such file"),
        ({"architecture": {}}, "train.adapter is lora, but a model from scratch .*set train.adapter=full"),
        ({"data": {"block": 64}}, "data.block is 64 and train.loss_on is last.*set train.loss_on=all"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_there_is_a_folder(tiny_model, changes, message):
    with pytest.raises(UserError, match=message):
        check_sft(parse_recipe(SftRecipe, sft_recipe(tiny_model) | changes, "test"))


def test_text_with_loss_on_responses_is_refused_before_there_is_a_folder(tiny_model, tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo")
    content = sft_recipe(tiny_model, data={"path": str(tmp_path / "text.txt"), "validation_rows": 1})
    with pytest.raises(UserError, match="no responses, but train.loss_on is last: set train.loss_on=all"):
        check_sft(parse_recipe(SftRecipe, content, "test"))
