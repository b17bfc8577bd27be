"""The whole comparison on a tiny random model: its metrics, its report, kills, memory of its own."""

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.models.loading import load
from llmctl.runs import read_journal
from llmctl.studies.adapters.probe import curve_steps, read_probe
from llmctl.training.data import prepare
from llmctl.training.data.rows import read_rows
from llmctl.training.validation import row_losses
from tests.training.runs import compare_recipe, facts, run_compare_in

ARMS = ("base", "lora", "sparse_gin", "self_loop")


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("compare") / "whole"
    run_compare_in(folder, compare_recipe(tiny_model))
    return folder


@pytest.fixture(scope="module")
def metrics(whole):
    return json.loads((whole / "metrics.json").read_text())


def test_every_arm_has_the_promised_figures_by_seed(metrics):
    for arm in ARMS:
        for name in (
            "trainable_parameters",
            "validation_loss",
            "perplexity",
            "seconds_per_step",
            "peak_memory",
        ):
            assert set(metrics[arm][name]["values"]) == {"0", "1"}, (arm, name)
        losses = metrics[arm]["validation_loss"]
        assert losses["value"] == pytest.approx(statistics.mean(losses["values"].values()))
    for arm in ARMS[1:]:
        assert metrics[arm]["trainable_parameters"]["value"] == pytest.approx(9000, rel=0.05)
        losses = metrics[arm]["validation_loss"]
        values = list(losses["values"].values())
        half = 12.706 * statistics.stdev(values) / 2**0.5  # Student's t with one degree of freedom
        assert losses["high"] - losses["value"] == pytest.approx(half, rel=1e-3, abs=1e-9)
        assert all(seconds > 0 for seconds in metrics[arm]["seconds_per_step"]["values"].values())
    assert metrics["base"]["trainable_parameters"]["value"] == 0
    assert metrics["base"]["validation_loss"]["low"] is None  # measured once
    assert set(metrics["base"]["seconds_per_step"]["values"].values()) == {None}


def test_figures_are_those_of_the_saved_adapters(whole, metrics, tiny_model):
    for arm, seed in (("lora", "0"), ("sparse_gin", "1")):
        loaded = load(tiny_model, adapter=whole / "models" / f"{arm}-{seed}")
        for name, file in (("validation_loss", "validation"), ("train_loss", "fit")):
            data = prepare(read_rows(whole / f"data/{file}.jsonl"), loaded.tokenizer)
            exact = row_losses(loaded.model, data, 3).loss
            assert metrics[arm][name]["values"][seed] == pytest.approx(exact, rel=1e-5)
        gap = metrics[arm]["validation_loss"]["values"][seed] - metrics[arm]["train_loss"]["values"][seed]
        assert metrics[arm]["generalization_gap"]["values"][seed] == pytest.approx(gap)


def test_differences_are_paired_by_seed_and_by_row(whole, metrics):
    units = {line["key"]: line for line in read_journal(whole / "journal/units.jsonl")}
    found = {(d["first"], d["second"]): d for d in metrics["differences"]}
    assert list(found)[0] == ("sparse_gin", "lora") and len(found) == 6
    one = found["sparse_gin", "lora"]
    for seed, value in one["values"].items():
        expected = units[f"sparse_gin/{seed}"]["validation_loss"] - units[f"lora/{seed}"]["validation_loss"]
        assert value == pytest.approx(expected)
    # Over rows: all tokens weigh alike and seeds are averaged, so the mean is the same.
    assert one["over_rows"]["value"] == pytest.approx(one["over_seeds"]["value"])
    assert one["over_rows"]["n"] == 4 and one["over_seeds"]["n"] == 2


def test_all_arms_see_the_same_batches_and_start_at_the_loss_of_the_base(metrics):
    first = {arm: metrics["curves"][arm]["training"]["0"][0] for arm in ARMS[1:]}
    assert len({round(loss, 4) for loss in first.values()}) == 1  # LoRA and Sparse-GIN start as no-ops
    for arm in ARMS[1:]:
        assert [step for step, _ in metrics["curves"][arm]["validation"]["0"]] == [2, 4]


def test_the_report_has_a_table_figures_and_sentences(whole):
    text = (whole / "report.md").read_text()
    for words in (
        "| self-loops only |",
        "Sparse-GIN minus LoRA: validation loss",
        "differ by",
        "learning rate",
    ):
        assert words in text
    assert {path.name for path in (whole / "figures").iterdir()} == {"curves.png", "perplexity.png"}


@pytest.mark.slow
def test_killed_inside_trainings_a_comparison_ends_as_an_unbroken_one(whole, tiny_model, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(compare_recipe(tiny_model)))
    command = [sys.executable, str(Path(__file__).parents[2] / "training" / "runs.py"), "compare"]
    command += [str(tmp_path / "recipe.json"), str(tmp_path / "run"), "lora-0:3", "self_loop-1:1"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert json.loads(done.stdout or "0") == [-signal.SIGKILL, -signal.SIGKILL, 0], done.stderr
    again, before = facts(tmp_path / "run"), facts(whole)
    assert again == before


@pytest.mark.slow
def test_a_process_of_its_own_measures_memory_and_gives_the_same_losses(whole, tiny_model, tmp_path):
    content = compare_recipe(tiny_model, isolate=True, arms=["lora"], seeds=[0])
    found = run_compare_in(tmp_path / "run", content)
    before = json.loads((whole / "metrics.json").read_text())
    assert found["curves"]["lora"]["training"]["0"] == before["curves"]["lora"]["training"]["0"]
    assert 1 < found["lora"]["peak_memory"]["value"] < 4096  # MiB; a tiny model


def test_each_arm_chooses_its_rate_on_training_rows_apart(tiny_model, tmp_path):
    content = compare_recipe(tiny_model, arms=["lora"], seeds=[0], data={"rows": 12, "validation_rows": 3})
    content["search"] = {"rates": [1e-6, 1e-2], "rows": 4, "steps": 2}
    content["train"] |= {"epochs": 1}
    found = run_compare_in(tmp_path / "run", content)
    assert found["lora"]["learning_rate"] == 1e-2  # the other one can not move at all
    assert set(found["comparison"]["search"]) == {"lora/1e-06", "lora/0.01"}
    files = {
        name: (tmp_path / f"run/data/{name}.jsonl").read_text().splitlines()
        for name in ("train", "validation", "search-train", "search-validation")
    }
    assert len(files["search-validation"]) == 4 and len(files["search-train"]) == 8
    assert not set(files["validation"]) & set(files["search-validation"])
    assert not list((tmp_path / "run").glob("trials/*"))


def test_architectures_from_scratch_are_compared_with_the_first(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(f"some words, number {n}" for n in range(60)))
    small = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 24, "tokenizer": "bytes"}
    content = compare_recipe(
        "none",
        architectures={"plain": small, "gin": {"attention": "gin", **small}},
        data={"path": str(tmp_path / "text.txt"), "validation_rows": 20, "block": 32},
        budget=None,
    )
    content["train"] |= {"loss_on": "all", "max_steps": 4}
    found = run_compare_in(tmp_path / "run", content)
    assert [(d["first"], d["second"]) for d in found["differences"]] == [("gin", "plain")]
    assert found["gin"]["trainable_parameters"]["value"] == pytest.approx(
        found["plain"]["trainable_parameters"]["value"], rel=0.02
    )
    # Other first weights with every seed.
    assert len(set(found["plain"]["validation_loss"]["values"].values())) == 2
    assert not (tmp_path / "run/models/gin-0/start").exists()


def test_points_of_a_curve_lie_between_start_and_end():
    assert curve_steps(12, 2) == {4, 8}
    assert curve_steps(2, 3) == {1} and curve_steps(1, 1) == set() and curve_steps(9, 0) == set()


def test_lines_of_steps_that_were_done_again_count_once_and_a_torn_one_not_at_all(tmp_path):
    (tmp_path / "probe.jsonl").write_text(
        '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 1, "a": 3}\n{"st'
    )
    assert read_probe(tmp_path / "probe.jsonl") == {1: {"step": 1, "a": 3}, 2: {"step": 2, "a": 2}}
    assert read_probe(tmp_path / "none.jsonl") == {}
