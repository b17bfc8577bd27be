"""The whole loop on a tiny random model: every kind of training, iterations, teachers, kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from llmctl.errors import EngineError, UserError
from llmctl.rise import loop, policies
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.runs.recipe import parse_recipe
from llmctl.sampling.scripted import ScriptedSampler

from .runs import facts, leftovers, tiny_recipe, write_recipe


def run(folder, content):
    content.pop("kind", None)
    recipe = parse_recipe(RiseRecipe, content, "test")
    with Run.open(folder, recipe, "rise run") as open_run:
        return loop.run_rise(open_run, recipe, quiet=True)


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, tiny_recipe(tiny_model))
    return folder


@pytest.fixture
def starts(monkeypatch):
    """What every training started from: (output's name, model's folder name, adapter's folder name)."""
    import llmctl.training.run as trainer

    found, real = [], trainer.train

    def train(model, rows, settings, output, *, init_adapter=None, **rest):
        found.append((Path(output).name, Path(model).name, init_adapter and Path(init_adapter).name))
        return real(model, rows, settings, output, init_adapter=init_adapter, **rest)

    monkeypatch.setattr(trainer, "train", train)
    return found


def test_the_same_recipe_gives_the_same_run(whole, tiny_model, tmp_path):
    run(tmp_path / "again", tiny_recipe(tiny_model))
    assert facts(tmp_path / "again") == facts(whole)


def test_a_finished_run_stays_what_it_is(whole, monkeypatch):
    def open_sampler(*_, **__):
        raise AssertionError("nothing is left to sample")

    before, manifest = facts(whole), (whole / "manifest.json").read_text()
    monkeypatch.setattr(policies, "open_sampler", open_sampler)
    recipe = parse_recipe(RiseRecipe, {k: v for k, v in _content(whole).items() if k != "kind"}, "test")
    with Run.open(whole, recipe, "rise run") as open_run:
        loop.run_rise(open_run, recipe, quiet=True)
    assert facts(whole) == before
    assert (whole / "manifest.json").read_text() == manifest
    assert json.loads(manifest)["notes"]["engine"]["name"] == "transformers"


def _content(folder):
    from llmctl.runs.recipe import read_recipe_file

    return read_recipe_file(folder / "recipe.yaml")


def test_metrics_have_the_promised_interface(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    for stage in ("before", "after"):
        for name in ("m1_t1", "m3_t1", "m1_t3", "p1_t3", "pass_3", "compute_matched_gain"):
            assert set(metrics[stage][name]) == {"value", "low", "high", "n"}
            assert metrics[stage][name]["n"] == 10
    names = {"evaluate-0", "collect-1", "train-1", "evaluate-1"}
    assert set(metrics["seconds"]) == set(metrics["tokens"]) == names
    assert all(seconds >= 0 for seconds in metrics["seconds"].values())
    sampled = metrics["tokens"]["evaluate-0"]
    assert sampled["prompt_tokens"] > 0 and sampled["completion_tokens"] > 0
    assert metrics["tokens"]["train-1"]["label_tokens"] > 0


def test_a_report_is_written_with_its_figures(whole):
    text = (whole / "report.md").read_text()
    for words in (
        "m1@t1: one sample",
        "m1@t3 - m3@t1, equal compute",
        "wrong to right",
        "episodes",
        "minutes in all",
    ):
        assert words in text
    assert {path.name for path in (whole / "figures").iterdir()} == {"accuracy.png", "flows.png"}
    assert (whole / "report.html").stat().st_size > 10_000
    assert leftovers(whole) == []


@pytest.mark.parametrize("adapter", ["full", pytest.param("qlora", marks=pytest.mark.slow)])
def test_other_kinds_of_training_go_through_the_loop(tiny_model, tmp_path, starts, adapter):
    content = tiny_recipe(tiny_model, iterations=2)
    content["train"] = content["train"] | {"adapter": adapter}
    found = run(tmp_path / "run", content)
    assert found["after"]["m1_t1"].n == 10
    if adapter == "full":  # the second round starts from the weights of the first
        assert starts == [("1", tiny_model.name, None), ("2", "1", None)]
        assert (tmp_path / "run/models/2/model.safetensors").is_file()
    else:
        assert starts == [("1", tiny_model.name, None), ("2", tiny_model.name, "1")]


def test_iterations_go_on_with_one_adapter_after_a_warm_start(tiny_model, tmp_path, starts):
    content = tiny_recipe(tiny_model, iterations=2, warm_start={"problems": 6, "train": {"batch_size": 2}})
    content["evaluate"] |= {"each_iteration": True}
    found = run(tmp_path / "run", content)
    name = tiny_model.name
    assert starts == [("warm", name, None), ("1", name, "warm"), ("2", name, "1")]
    weights = [load_file(tmp_path / f"run/models/{m}/adapter_model.safetensors") for m in ("warm", "1", "2")]
    for one, other in zip(weights, weights[1:], strict=False):
        assert one.keys() == other.keys()
        assert any(not one[key].equal(other[key]) for key in one)
    assert set(found["iterations"]) == {"1"} and set(found["collection"]) == {"1", "2"}
    assert {i: counts["rows"] > 0 for i, counts in found["rows"].items()} == {"1": True, "2": True}
    assert {"train-warm", "train-1", "train-2", "evaluate-1", "collect-2"} <= set(found["seconds"])
    records = [json.loads(line) for line in (tmp_path / "run/journal/collect-2.jsonl").open()]
    first = [json.loads(line) for line in (tmp_path / "run/journal/collect-1.jsonl").open()]
    assert {r["problem"] for line in records for r in line["records"]} != {
        r["problem"] for line in first for r in line["records"]
    }


def test_an_adapter_to_begin_with_is_gone_on_with(whole, tiny_model, tmp_path, starts):
    content = tiny_recipe(tiny_model, adapter=str(whole / "models/1"))
    found = run(tmp_path / "run", content)
    assert starts == [("1", tiny_model.name, "1")]
    whole_after = [json.loads(line)["records"] for line in (whole / "journal/evaluate-1.jsonl").open()]
    before = [json.loads(line)["records"] for line in (tmp_path / "run/journal/evaluate-0.jsonl").open()]
    assert before == whole_after  # the same weights, seeds and problems
    assert "after" in found


def scripted(script):
    return lambda model, **_: ScriptedSampler(script, str(model))


def test_a_teacher_is_a_second_sampler_with_tokens_of_its_own(tiny_model, tmp_path, monkeypatch):
    real = policies.open_sampler

    def open_sampler(model, **options):
        if model != "teacher":
            return real(model, **options)
        return ScriptedSampler(lambda c, s: " ".join(sorted(c[-1]["content"].split("\n")[-1].split())))

    monkeypatch.setattr(policies, "open_sampler", open_sampler)
    content = tiny_recipe(tiny_model)
    content["collect"] |= {"improve": ["self", "teacher"], "teacher": {"model": "teacher"}}
    found = run(tmp_path / "run", content)
    counts = json.loads((tmp_path / "run/data/iteration-1.counts.json").read_text())
    assert counts["from teacher"] > 0 and counts["rows"] == counts["reward 1"]
    assert found["tokens"]["collect-1-teacher"]["completion_tokens"] == 2 * counts["from teacher"]
    assert "collect 1 teacher" in (tmp_path / "run/report.md").read_text().replace("-", " ")


def test_engine_failures_lose_nothing_and_are_counted_in_metrics_and_report(
    tiny_model, tmp_path, monkeypatch
):
    def script(conversation, seed):
        if seed % 4 == 0:
            raise EngineError("server gone")
        return "99 98"

    real = policies.open_sampler
    broken = {"on": True}

    def open_sampler(model, **options):
        return ScriptedSampler(script) if broken["on"] else real(model, **options)

    monkeypatch.setattr(policies, "open_sampler", open_sampler)
    found = run(tmp_path / "run", tiny_recipe(tiny_model))
    lines = [json.loads(line) for line in (tmp_path / "run/journal/evaluate-0.jsonl").open()]
    attempts = [a for line in lines for r in line["records"] for a in [*r["parallel"], *r["turns"][1:]]]
    failed = [a for a in attempts if "error" in a]
    assert failed and {a["error"] for a in failed} == {"server gone"}
    assert found["before"]["errors"] == len(failed) == found["tokens"]["evaluate-0"]["errors"]
    assert found["collection"]["1"]["errors"] == found["tokens"]["collect-1"]["errors"] > 0
    assert found["before"]["m1_t1"].n == 10
    assert f"The engine failed on {len(failed)} attempts" in (tmp_path / "run/report.md").read_text()


def test_an_evaluation_that_was_cut_short_is_no_stage(whole, tiny_model, tmp_path):
    import shutil

    folder = shutil.copytree(whole, tmp_path / "cut")
    journal = folder / "journal/evaluate-1.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    finished = folder / "journal/finished.jsonl"
    lines = finished.read_text().splitlines(keepends=True)
    finished.write_text("".join(line for line in lines if "evaluate-1" not in line))
    recipe = parse_recipe(RiseRecipe, {k: v for k, v in _content(whole).items() if k != "kind"}, "test")
    with Run.open(folder, recipe, "rise eval") as open_run:
        assert "after" not in loop.finish(open_run, recipe)
        finished.unlink()
    with Run.open(folder, recipe, "rise eval") as open_run:
        with pytest.raises(UserError, match="no complete evaluation of the base model yet"):
            loop.finish(open_run, recipe)


def test_a_task_with_fewer_problems_than_asked_for_is_whole_all_the_same(tiny_model, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"say {i}", "answer": str(i)}) + "\n" for i in range(5)))
    content = tiny_recipe(tiny_model, iterations=0, task={"name": "jsonl", "path": str(data)})
    assert run(tmp_path / "run", content)["before"]["m1_t1"].n == 5


def test_other_weights_under_the_same_name_are_refused(whole, tiny_model, tmp_path):
    import shutil

    from llmctl.models.tiny import make_tiny_model

    model = shutil.copytree(tiny_model, tmp_path / "model")
    run(tmp_path / "run", tiny_recipe(model, iterations=0))
    make_tiny_model(model, seed=5)
    with pytest.raises(UserError, match="was started with other inputs: model_fingerprint"):
        run(tmp_path / "run", tiny_recipe(model, iterations=0))


def test_the_models_of_a_run_can_be_sampled_from(whole, tiny_model):
    from llmctl.sampling import Settings, open_sampler

    with open_sampler(str(tiny_model), engine="transformers", adapter=whole / "models/1") as sampler:
        assert sampler.chat([[{"role": "user", "content": "3 1"}]], Settings(max_tokens=4))[0][0].token_ids


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_in_every_phase_ends_as_an_unbroken_one(whole, tiny_model, tmp_path, seed):
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe(tiny_model))
    script = Path(__file__).with_name("killed.py")
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), str(recipe), str(tmp_path / "run"), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    report = json.loads(done.stdout)
    assert report["code"] == 0, done.stderr
    assert len(report["killed"]) >= 7, report
    for phase in ("evaluate-0", "collect-1", "models/1", "evaluate-1"):
        assert any(phase in name for name in report["killed"])
    broken, unbroken = facts(tmp_path / "run"), facts(whole)
    # a kill between the two lines loses a chunk's seconds, and nothing else
    assert set(broken.pop("timing")) <= set(unbroken.pop("timing"))
    broken.pop("phases with seconds"), unbroken.pop("phases with seconds")
    assert broken == unbroken
    assert leftovers(tmp_path / "run") == []


@pytest.mark.slow
def test_the_smoke_recipe_runs_on_the_embedded_model(embedded_model, tmp_path):
    from llmctl.runs import load_recipe

    recipe = load_recipe(RiseRecipe, "rise/smoke")
    with Run.open(tmp_path / "smoke", recipe, "rise run") as open_run:
        metrics = loop.run_rise(open_run, recipe, quiet=True)
    assert metrics["before"]["m1_t1"].n == metrics["after"]["m1_t1"].n == 16
    assert metrics["collection"]["1"]["episodes"] == 24
    for name in ("report.md", "report.html", "figures/accuracy.png", "figures/flows.png"):
        assert (tmp_path / "smoke" / name).stat().st_size > 500
    assert "Sort" not in metrics and "m1@t3" in (tmp_path / "smoke/report.md").read_text()


def test_a_server_can_be_evaluated_but_not_trained(tmp_path, monkeypatch):
    content = tiny_recipe(Path("a-name-only-the-server-knows"), sampler={"engine": "server"})
    with pytest.raises(UserError, match="sampler.engine is server and iterations is 1.*set iterations=0"):
        run(tmp_path / "refused", dict(content))
    monkeypatch.setattr(policies, "open_sampler", lambda *_, **__: ScriptedSampler(lambda *_: "10 20"))
    metrics = run(tmp_path / "run", {**content, "iterations": 0})
    assert metrics["before"]["m1_t1"].n == 10 and "after" not in metrics
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_run_does_not_go_on_with_another_adapter(whole, tiny_model, tmp_path):
    import shutil

    adapter = tmp_path / "adapter"
    shutil.copytree(whole / "models" / "1", adapter)
    content = tiny_recipe(tiny_model, adapter=str(adapter), iterations=0)
    run(tmp_path / "run", dict(content))
    weights = load_file(adapter / "adapter_model.safetensors")
    from safetensors.torch import save_file

    save_file({name: tensor + 1 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="adapter_fingerprint"):
        run(tmp_path / "run", dict(content))
