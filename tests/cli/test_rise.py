"""`llmctl rise`: the loop, its phases on their own, and what is refused."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

RECIPE = {
    "kind": "rise",
    "task": {"name": "sort", "options": {"min_length": 2, "max_length": 2}},
    "sampling": {"temperature": 1.0, "max_tokens": 6, "window": 2},
    "collect": {"problems": 6, "turns": 2, "samples": 2, "improve": ["self", "reference"], "chunk": 4},
    "train": {"learning_rate": 1e-3, "batch_size": 4},
    "evaluate": {"problems": 6, "turns": 3, "parallel": 3, "chunk": 4},
}


@pytest.fixture
def recipe(tiny_model, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": str(tiny_model)}))
    return str(path)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """A run made by a process of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": str(tiny_model)}))
    command = [
        sys.executable,
        "-m",
        "llmctl",
        "rise",
        "run",
        str(path),
        "--run",
        str(folder / "run"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def journals(folder):
    found = {path.name: path.read_text() for path in folder.glob("journal/*") if path.stem != "timing"}
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    # phases on their own finish in another order, which is no result
    found["finished.jsonl"] = "".join(sorted(found["finished.jsonl"].splitlines()))
    return found, metrics, (folder / "data/iteration-1.jsonl").read_text()


def test_json_is_one_document_and_all_that_is_printed(finished):
    folder, done = finished
    assert json.loads(done.stdout) == json.loads((folder / "metrics.json").read_text())
    assert "problems/s" not in done.stderr and "Traceback" not in done.stderr


def test_phases_on_their_own_then_run_give_what_run_gives(llmctl, recipe, finished, tmp_path):
    folder = tmp_path / "apart"
    with_run = ("--run", str(folder), "--json")
    collected = json.loads(llmctl("rise", "collect", recipe, *with_run).out)
    assert collected["rows"]["rows"] > 0 and collected["data"].endswith("data/iteration-1.jsonl")
    trained = json.loads(llmctl("rise", "train", recipe, *with_run).out)
    assert trained["steps"] >= 1 and trained["last_loss"] > 0
    after = json.loads(llmctl("rise", "eval", recipe, "--iteration", "1", *with_run).out)
    assert not (folder / "metrics.json").exists()  # there is nothing to compare with yet
    before = json.loads(llmctl("rise", "eval", recipe, *with_run).out)
    assert (folder / "metrics.json").exists()
    metrics = json.loads(llmctl("rise", "run", recipe, *with_run).out)
    assert (metrics["before"]["m1_t1"], metrics["after"]["m1_t1"]) == (before["m1_t1"], after["m1_t1"])
    assert journals(folder) == journals(finished[0])


def test_a_table_verdicts_and_the_reports_place_are_printed(llmctl, recipe, finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    found = llmctl("rise", "run", recipe, "--run", str(folder))
    assert found.code == 0
    assert "m1@t1: one sample" in found.out and "\n- " in found.out
    assert found.out.rstrip().endswith(f"report: {folder / 'report.html'}")


def test_dry_run_shows_the_work_and_makes_nothing(llmctl, recipe, tmp_path):
    for command in ("run", "collect", "train", "eval"):
        found = llmctl("rise", command, recipe, "--run", str(tmp_path / "none"), "--dry-run")
        assert found.code == 0
        assert "kind: rise" in found.out and "# samples per evaluation, at most: 30" in found.out
    plan = json.loads(
        llmctl("rise", "run", recipe, "--run", str(tmp_path / "none"), "--dry-run", "--json").out
    )
    assert plan["recipe"]["collect"]["problems"] == 6 and plan["work"]["evaluations"] == 2
    assert not (tmp_path / "none").exists()


def test_a_changed_recipe_is_refused_and_fresh_starts_over(llmctl, recipe, finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "mine.txt").write_text("keep")
    found = llmctl("rise", "eval", recipe, "--run", str(folder), "--set", "evaluate.problems=4")
    assert found.code == 2 and "evaluate.problems 6 -> 4" in found.err and "--fresh" in found.err
    arguments = ("--run", str(folder), "--set", "evaluate.problems=4", "--fresh", "--json")
    assert json.loads(llmctl("rise", "eval", recipe, *arguments).out)["m1_t1"]["n"] == 4
    assert not (folder / "journal/collect-1.jsonl").exists() and (folder / "mine.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            ("train",),
            "data/iteration-1.jsonl does not exist: run `llmctl rise collect` for this iteration first",
        ),
        (("eval", "--iteration", "1"), "models/1 is not trained yet: run `llmctl rise train`"),
        (("collect", "--iteration", "2"), "--iteration is 2, but the recipe has 1"),
        (("collect", "--iteration", "0"), "Invalid value for '--iteration'"),
        (
            ("run", "--set", "collect.sample=2"),
            "unknown key 'collect.sample': did you mean 'collect.samples'",
        ),
    ],
)
def test_a_missing_phase_or_a_wrong_option_is_one_line(llmctl, recipe, tmp_path, arguments, match):
    command, *rest = arguments
    found = llmctl("rise", command, recipe, "--run", str(tmp_path / "run"), *rest)
    assert found.code == 2 and match in found.err
    assert found.err.strip().count("\n") == 0 and found.out == ""


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("model=smollm2-135n", "unknown model 'smollm2-135n': did you mean 'smollm2-135m'?"),
        ("model=./nowhere", "model folder ./nowhere does not exist"),
        ("task.name=sorted", "no task 'sorted'; the nearest is 'sort'"),
        ("task.options.length=3", "sort has no option 'length'"),
        ("task.train_split=validation", "sort has no split 'validation'"),
        ("adapter=./nowhere", "adapter is nowhere, which has no adapter_config.json"),
        ("launch=./nowhere.yaml", "launch is nowhere.yaml, but there is no such file"),
        ("sampler.options.max_bach=3", "did you mean 'max_batch'?"),
        ("sampler.engine=tgi", "engine is 'tgi', but it must be one of"),
    ],
)
def test_a_mistake_in_the_inputs_is_found_before_a_folder_is_made(llmctl, recipe, tmp_path, change, match):
    found = llmctl("rise", "run", recipe, "--run", str(tmp_path / "run"), "--set", change)
    assert found.code == 2 and match in found.err, found.err
    assert found.err.strip().count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_a_broken_or_empty_file_of_problems_is_told_with_its_line(llmctl, recipe, tmp_path):
    data = tmp_path / "data.jsonl"
    arguments = ("--run", str(tmp_path / "run"), "--set", "task.options={}", "--set", "task.name=jsonl")
    arguments += ("--set", f"task.path={data}")
    for text, match in (("", "data.jsonl"), ('{"prompt": "x"\n', "line 1"), ('{"answer": "1"}\n', "prompt")):
        data.write_text(text)
        found = llmctl("rise", "run", recipe, *arguments)
        assert found.code == 2 and match in found.err and found.err.strip().count("\n") == 0
        assert not (tmp_path / "run").exists()


def test_nothing_fit_to_train_on_is_told(llmctl, recipe, tmp_path):
    arguments = ("--run", str(tmp_path / "run"), "--set", "collect.improve=[self]")
    found = llmctl("rise", "collect", recipe, *arguments)
    assert found.code == 2 and "no collected response is good enough to train on" in found.err


def test_compare_prints_a_table_or_json(llmctl, finished):
    folder = str(finished[0])
    found = llmctl("rise", "compare", folder, folder)
    assert found.code == 0 and "6 shared problems" in " ".join(found.out.split())
    figures = json.loads(llmctl("rise", "compare", folder, folder, "--json").out)["figures"]
    assert figures["m1_t1"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 6}
    refused = llmctl("rise", "compare", folder, folder + "x")
    assert refused.code == 2 and "is no run" in refused.err
