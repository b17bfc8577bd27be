"""A curve as a run: its files, resuming, shards, and the comparison of two of them."""

import json
import shutil

import pytest

from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_model
from llmctl.reach import Problem, solve
from llmctl.reach.curves import run as module
from llmctl.reach.curves.compare import compare_runs, run_comparison
from llmctl.reach.curves.compare_recipe import CurveComparisonRecipe
from llmctl.reach.curves.known import known_curve
from llmctl.reach.curves.merge import finish_merge, merge_runs
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.run import read_pairs, run_curve
from llmctl.runs import Run

FIELDS = (
    "verdict k control_ids control_text method base_rank base_loss loss forwards forward_tokens roundtrips"
)


@pytest.fixture(scope="module")
def settings(tiny_model):
    return {
        "model": str(tiny_model),
        "states": {"count": 6, "lengths": [4, 6]},
        "search": {"max_k": 2},
        "controls": {"sample": 120},
    }


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve") / "run"
    return folder, make(folder, settings)


def make(folder, settings, **changes):
    recipe = CurveRecipe.model_validate({**settings, **changes})
    with Run.open(folder, recipe, "reach curve") as run:
        return run_curve(run, recipe, quiet=True)


def content(folder):
    """Everything that must not depend on how a run came about."""
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    return metrics, (folder / "pairs.jsonl").read_text(), (folder / "journal/pairs.jsonl").read_text()


def test_pairs_have_the_fields_of_solve_and_metrics_the_curve(finished):
    folder, metrics = finished
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 6 and all(field in pairs[0] for field in FIELDS.split())
    assert set(metrics["epsilon"]) == {"0", "1", "2"}
    for k, point in metrics["epsilon"].items():
        unsolved = sum(pair["k"] is None or pair["k"] > int(k) for pair in pairs)
        assert point["value"] == pytest.approx(unsolved / 6) and (point["n"], point["clusters"]) == (6, 6)
        assert point["low"] <= point["value"] <= point["high"]
    assert (folder / "report.html").is_file() and (folder / "figures/epsilon.png").is_file()


def test_a_pair_is_what_solve_gives_for_it(finished, tiny_model):
    from llmctl.models.loading import load
    from llmctl.reach.curves.plan import problem_template, search_plan

    folder, _ = finished
    loaded = load(tiny_model)
    recipe = CurveRecipe.model_validate(json.loads(json.dumps({"controls": {"sample": 120}})))
    template = problem_template(recipe.controls, 0, loaded.tokenizer, loaded.model.config.vocab_size)
    for line in (folder / "pairs.jsonl").read_text().splitlines()[:3]:
        pair = json.loads(line)
        problem = Problem(pair["state_ids"], pair["target_ids"], candidates=template.candidates)
        plan = search_plan(recipe.search.model_copy(update={"max_k": 2}))
        alone = solve(loaded.model, loaded.tokenizer, problem, plan, 2)
        assert (alone.verdict, alone.k, list(alone.control_ids)) == (
            pair["verdict"],
            pair["k"],
            pair["control_ids"],
        )
        assert alone.forward_tokens == pair["forward_tokens"]


def test_the_random_baseline_spends_no_more_than_the_search(finished):
    folder, metrics = finished
    spent = {line["id"]: line for line in map(json.loads, (folder / "journal/pairs.jsonl").open())}
    for line in map(json.loads, (folder / "journal/baseline.jsonl").open()):
        own = spent[line["id"]]
        budget = own["forward_tokens"] + 2 * own["backward_tokens"]
        checks = len(line["state_ids"]) + 3  # the state alone, and a hit asked again alone
        assert line["forward_tokens"] <= budget + 3 * checks
    assert metrics["baseline"]["search_minus_random"].n == 6


@pytest.mark.parametrize("search", [{"max_k": 2}, {"max_k": 2, "share_scan": True}])
def test_a_curve_stopped_anywhere_ends_with_the_same_files(settings, tmp_path, monkeypatch, search):
    changes = {
        "search": search,
        "targets": {"draw": "top", "count": 3},
        "states": {"count": 3, "lengths": [4]},
    }
    make(tmp_path / "whole", settings, **changes)
    appended = module.Run.journal
    for stop_after in (0, 1, 2, 5, 8):
        count = 0

        def journal(self, name, stop_after=stop_after):
            nonlocal count
            book = appended(self, name)
            if name in ("pairs", "baseline", "scans") and not hasattr(book, "plain"):
                book.plain = book.append

                def append(key, record, book=book):
                    nonlocal count
                    if count == stop_after:
                        raise KeyboardInterrupt
                    count += 1
                    book.plain(key, record)

                book.append = append
            return book

        folder = tmp_path / f"stopped-{stop_after}"
        monkeypatch.setattr(module.Run, "journal", journal)
        with pytest.raises(KeyboardInterrupt):
            make(folder, settings, **changes)
        monkeypatch.setattr(module.Run, "journal", appended)
        make(folder, settings, **changes)
        assert content(folder) == content(tmp_path / "whole"), stop_after


def test_a_shared_scan_answers_k_1_for_all_targets_with_a_certificate(settings, tmp_path):
    changes = {"targets": {"draw": "top", "count": 4}, "states": {"count": 2, "lengths": [4]}}
    shared = make(
        tmp_path / "s", settings, **changes, search={"max_k": 1, "share_scan": True}, baseline="none"
    )
    exhaustive = {"max_k": 1, "schedule": "greedy", "candidates": 120, "steps": 1}
    apart = make(tmp_path / "a", settings, **changes, search=exhaustive, baseline="none")
    assert shared["epsilon"]["1"]["value"] == apart["epsilon"]["1"]["value"]
    verdicts = [json.loads(line)["verdict"] for line in (tmp_path / "s/pairs.jsonl").open()]
    assert set(verdicts) <= {"reached", "unreachable"}
    assert shared["forward_tokens"] < apart["forward_tokens"]


def test_shards_merge_into_the_whole(settings, finished, tmp_path):
    folders = [tmp_path / "b", tmp_path / "a"]
    make(folders[0], settings, shard={"index": 1, "of": 2})
    make(folders[1], settings, shard={"index": 0, "of": 2})
    recipe, journals = merge_runs(folders)
    with Run.open(tmp_path / "merged", recipe, "reach merge") as run:
        metrics = finish_merge(run, recipe, journals)
        assert len(read_pairs(run, "pairs")) == 6
    assert metrics["epsilon"] == finished[1]["epsilon"]
    assert content(tmp_path / "merged")[:2] == content(finished[0])[:2]


def test_a_merge_refuses_what_is_missing_doubled_or_foreign(settings, tmp_path):
    for index in (0, 1):
        make(tmp_path / str(index), settings, shard={"index": index, "of": 2}, baseline="none")
    one, two = tmp_path / "0", tmp_path / "1"
    with pytest.raises(UserError, match="shard 1 of 2 is missing"):
        merge_runs([one])
    with pytest.raises(UserError, match="shard 0 is there twice"):
        merge_runs([one, one])
    make(tmp_path / "other", settings, shard={"index": 1, "of": 2}, baseline="none", search={"max_k": 1})
    with pytest.raises(UserError, match="another curve than .*search.max_k 2 -> 1"):
        merge_runs([one, tmp_path / "other"])
    journal = two / "journal/pairs.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="lacks 1 of 3 pairs"):
        merge_runs([one, two])
    first = (one / "journal/pairs.jsonl").read_text().splitlines(keepends=True)[0]
    journal.write_text("".join(lines) + first)
    with pytest.raises(UserError, match="holds 1 pairs that another shard has"):
        merge_runs([one, two])


def test_a_curve_can_be_drawn_beside_another(settings, finished, tmp_path):
    folder, metrics = finished
    curve = known_curve(str(folder))
    assert curve.at(2) == metrics["epsilon"]["2"]["value"] and curve.n == 6
    make(tmp_path / "beside", settings, beside=[str(folder), "falcon-7b"], baseline="none")
    assert "falcon-7b (published)" in (tmp_path / "beside/report.md").read_text()


def test_published_curves_are_those_of_the_result_files():
    assert known_curve("falcon-7b").at(10) == pytest.approx(1 - 0.9716)
    assert known_curve("llama-7b/top75").at(10) == pytest.approx(1 - 0.8549)
    with pytest.raises(UserError, match="no published curve"):
        known_curve("falcon-8b")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("other") / "model", "llama", seed=7)


def test_a_comparison_runs_every_model_on_the_pairs_of_the_first(settings, other_model, tmp_path):
    shared = {key: value for key, value in settings.items() if key != "model"}
    arms = {"base": {"model": settings["model"]}, "other": {"model": str(other_model)}}
    recipe = CurveComparisonRecipe.model_validate(
        {**shared, "arms": arms, "targets": {"draw": "top", "count": 2}}
    )
    with Run.open(tmp_path / "c", recipe, "reach compare") as run:
        found = run_comparison(run, recipe, quiet=True)
    pairs = {
        name: [json.loads(line) for line in (tmp_path / f"c/arms/{name}/pairs.jsonl").open()] for name in arms
    }
    assert [p["target_ids"] for p in pairs["base"]] == [p["target_ids"] for p in pairs["other"]]
    unsolved = {name: sum(p["k"] is None for p in found_pairs) / 12 for name, found_pairs in pairs.items()}
    difference = found.differences["other"]
    assert difference.epsilon["2"].value == pytest.approx(unsolved["other"] - unsolved["base"])
    assert difference.gained - difference.lost == pytest.approx(12 * (unsolved["base"] - unsolved["other"]))
    assert found.recipes == {} and (found.pairs, found.states) == (12, 6)
    again = compare_runs([tmp_path / "c/arms/base", tmp_path / "c/arms/other"])
    assert again.differences == found.differences


def test_curves_of_other_pairs_are_not_compared(settings, finished, tmp_path):
    make(tmp_path / "fewer", settings, states={"count": 5, "lengths": [4, 6]}, baseline="none")
    with pytest.raises(UserError, match="differ in .* pairs"):
        compare_runs([finished[0], tmp_path / "fewer"])
    make(tmp_path / "top", settings, targets={"draw": "top", "count": 1}, baseline="none")
    with pytest.raises(UserError, match="have different states or targets in .* pairs"):
        compare_runs([finished[0], tmp_path / "top"])
    with pytest.raises(UserError, match="given twice"):
        compare_runs([finished[0], finished[0]])


def test_pairs_with_nan_logits_are_reported_and_not_ranked(settings, tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if "embed_tokens" in key)
    weights[name][10:60] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    metrics = make(tmp_path / "run", settings, model=str(broken))
    assert metrics["errors"] and "NaN or infinite logits" in metrics["errors"][0]["error"]
    bad = {error["id"] for error in metrics["errors"]}
    for pair in map(json.loads, (tmp_path / "run/pairs.jsonl").open()):
        assert (pair["verdict"] == "reached") <= (pair["id"] not in bad)
    assert "NaN or infinite logits on" in (tmp_path / "run/report.md").read_text()


def test_a_curve_killed_outright_ends_with_the_same_files(settings, finished, tmp_path):
    import subprocess
    import sys
    import time

    import yaml

    path, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump({"kind": "reach-curve", **settings}))
    command = [sys.executable, "-m", "llmctl", "reach", "curve", str(path), "--run", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = folder / "journal/pairs.jsonl"
    for _ in range(6000):  # five minutes, for a machine with much else to do
        if process.poll() is not None or (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 2 <= journal.read_bytes().count(b"\n") < 7
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert content(folder) == content(finished[0])


def test_problems_searched_at_once_give_the_same_curve(settings, finished, tmp_path):
    metrics = make(tmp_path / "many", settings, search={"max_k": 2, "at_once": 3})
    assert metrics["epsilon"] == finished[1]["epsilon"]
    assert metrics["forward_tokens"] == finished[1]["forward_tokens"]


def test_witnesses_asked_again_in_another_dtype_are_marked(settings, tmp_path):
    make(tmp_path / "run", settings, recheck=["float32", "bfloat16"], targets={"draw": "top", "count": 3})
    pairs = [json.loads(line) for line in (tmp_path / "run/pairs.jsonl").open()]
    reached = [pair for pair in pairs if pair["k"] is not None]
    assert reached and all(pair["rechecks"]["transformers float32"] for pair in reached)
    assert all("transformers bfloat16" in pair["rechecks"] for pair in reached)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["rechecks"]["transformers float32"] == {"holds": len(reached), "of": len(reached)}
    assert "Checked again on transformers bfloat16" in (tmp_path / "run/report.md").read_text()
