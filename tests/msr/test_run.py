"""Whole runs on tiny random models: phases, arms, kills, mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_model
from llmctl.msr.preflight import check_inputs
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.run import run_msr
from llmctl.runs import Run
from llmctl.runs.recipe import parse_recipe
from llmctl.sampling.transformers_engine import TransformersSampler

from .runs import facts, tiny_recipe, tiny_world, write_recipe


def parsed(content):
    return parse_recipe(MsrRecipe, {k: v for k, v in content.items() if k != "kind"}, "test")


def run(folder, content):
    recipe = parsed(content)
    check_inputs(recipe)
    with Run.open(folder, recipe, "msr run") as open_run:
        return run_msr(open_run, recipe, quiet=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, tiny_recipe(world))
    return folder


MODELS = ["titles-untuned", "titles", "told-untuned", "told", "at-once", "seen", "popularity", "item-knn"]


def test_metrics_hold_one_object_a_model_and_nothing_else(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    assert list(metrics) == MODELS
    hashes = {found["candidate_hash"] for found in metrics.values()}
    assert len(hashes) == 1
    for found in metrics.values():
        for name in ("auc", "hr@3", "hr@5", "hr@10", "mrr@5", "ndcg@5"):
            assert set(found[name]) == {"value", "low", "high", "n"} and found[name]["n"] == 6


def test_scores_hold_every_candidate_of_every_model_on_the_same_lists(whole):
    table = pq.read_table(whole / "scores.parquet").to_pandas()
    assert list(dict.fromkeys(table["model"])) == MODELS and len(table) == len(MODELS) * 6 * 5
    lists = {name: part[["user", "item", "label"]].values.tolist() for name, part in table.groupby("model")}
    assert all(one == lists["told"] for one in lists.values())
    own = table[~table["model"].isin(["popularity", "item-knn"])]
    assert own["score"].between(0, 1).all() and own["score"].nunique() > 100


def test_claims_and_tuning_are_compared_user_by_user(whole):
    found = {one["claim"]: one for one in json.loads((whole / "comparisons.json").read_text())}
    assert list(found) == ["pictures beat titles", "tuning betters titles", "tuning betters told"]
    table = pq.read_table(whole / "scores.parquet").to_pandas()
    aucs = {}
    for model in ("told", "titles"):
        rows = table[table["model"] == model]
        scores, labels = (rows[c].to_numpy().reshape(6, 5) for c in ("score", "label"))
        own = scores[labels == 1][:, None]
        aucs[model] = (((scores < own) + 0.5 * (scores == own)) * (labels == 0)).sum(1) / 4
    difference = found["pictures beat titles"]["differences"]["auc"]
    assert difference["value"] == pytest.approx((aucs["told"] - aucs["titles"]).mean())
    sentence = found["pictures beat titles"]["sentence"]
    is_shown = difference["low"] > 0
    assert sentence.startswith("Shown: ") == is_shown and "6 users" in sentence


def test_rows_are_one_yes_and_one_no_for_every_user_and_other_negatives_in_every_pass(whole):
    rows = [json.loads(line) for line in (whole / "data/rows-told.jsonl").open()]
    assert [row["pass"] for row in rows] == [0] * 10 + [1] * 10
    answers = [row["messages"][1]["content"] for row in rows]
    assert answers == ["yes", "no"] * 10
    questions = [row["messages"][0]["content"] for row in rows]
    assert questions[0::2][:5] == questions[0::2][5:] and questions[1::2][:5] != questions[1::2][5:]


def test_the_image_variant_shows_pictures_and_says_what_it_can_not_show(whole):
    rows = [json.loads(line) for line in (whole / "data/rows-seen.jsonl").open()]
    parts = [row["messages"][0]["content"] for row in rows]
    pictured = [content for content in parts if isinstance(content, list)]
    assert pictured and all(Path(content[1]["path"]).is_file() for content in pictured)
    assert all([part["type"] for part in content] == ["text", "image", "text"] for content in pictured)


def test_the_report_shows_items_users_figures_and_the_table(whole):
    text = (whole / "report.md").read_text()
    for words in (
        "95 % intervals by bootstrap",
        "pictures described",
        "summary:",
        "calibration error",
        "tuning betters told",
        "item-knn",
        "chosen next:",
        "figures/items.png",
    ):
        assert words in text, words
    page = (whole / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3


def test_a_finished_run_opens_no_model(whole, world, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing is left to ask")

    monkeypatch.setattr(TransformersSampler, "__init__", refuse)
    before = facts(whole)
    run(whole, tiny_recipe(world))
    assert facts(whole) == before


def test_a_second_run_finds_all_summaries_in_the_cache(whole, world, tmp_path, monkeypatch):
    cache = tmp_path / "c.sqlite"
    only = {"arms": {"told": {"recommender": {"train": None}}}, "claims": {}}
    run(tmp_path / "a", tiny_recipe(world, cache, **only))
    asked = []
    monkeypatch.setattr(TransformersSampler, "chat", lambda *given: asked.append(given))
    run(tmp_path / "b", tiny_recipe(world, cache, **only))
    assert asked == [] and facts(tmp_path / "a") == facts(tmp_path / "b")


def run_apart(*command):
    """Run a command in a process of its own, with one thread; gives what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_run_killed_in_every_phase_ends_as_an_unbroken_one(world, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", tiny_recipe(world))
    run_apart("-m", "llmctl", "msr", "run", recipe, "--run", tmp_path / "whole", "--json")
    report = json.loads(run_apart(Path(__file__).with_name("killed.py"), recipe, tmp_path / "run", 1))
    assert report["code"] == 0 and len(report["killed"]) >= 10, report
    for phase in ("items", "users", "models", "eval"):
        assert any(phase in name for name in report["killed"])
    broken, unbroken = facts(tmp_path / "run"), facts(tmp_path / "whole")
    # a kill between the two lines loses a chunk's seconds, and nothing else
    assert set(broken.pop("timing")) <= set(unbroken.pop("timing"))
    assert broken == unbroken
    names = [path.name for path in (tmp_path / "run").rglob("*")]
    assert not [name for name in names if "tmp" in name or "checkpoint" in name]


def test_lists_of_other_data_are_refused_with_both_versions(whole, world, tmp_path):
    other = tiny_world(tmp_path / "other")
    (other / "data/items.csv").write_text((other / "data/items.csv").read_text().replace("thing 7", "THING"))
    content = tiny_recipe(other)
    content["candidates"] = {"path": str(whole / "data/candidates.parquet")}
    with pytest.raises(UserError, match="was made from data version .*, but the data here has version"):
        run(tmp_path / "run", content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": {"vlm": "LLM"}}, "items.vlm is .*, which takes no pictures"),
        ({"recommender": {"variant": "image", "model": "LLM"}}, "but .* takes no pictures: give a vision"),
        ({"recommender": {"model": "MUTE"}}, "has no token that is 'yes'"),
        ({"recommender": {"model": "LLM", "sampler": {"engine": "server"}}}, "a server shows no vocabulary"),
        ({"users": {"llm": "LLM", "sampler": {"options": {"max_batsh": 2}}}}, "did you mean 'max_batch'"),
        ({"users": {"llm": "nowhere"}}, "nowhere"),
        ({"data": {"interactions": "none.csv", "items": "none.csv"}}, "which is not there"),
    ],
)
def test_mistakes_are_told_before_any_work(world, tmp_path, change, message):
    if not (world / "mute").exists():
        make_tiny_model(world / "mute")
    names = {"LLM": str(world / "llm"), "MUTE": str(world / "mute")}
    text = json.dumps(change)
    for name, path in names.items():
        text = text.replace(f'"{name}"', json.dumps(path))
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path / "run", tiny_recipe(world) | {"arms": {}, "claims": {}} | json.loads(text))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("adapter", ["full", "sparse-gin"])
def test_any_adapter_is_trained_and_evaluated_by_its_name(world, tmp_path, adapter):
    content = tiny_recipe(world, arms={}, claims={})
    content["users"] |= {"mode": "none", "history": 3}
    content["recommender"] |= {"variant": "text", "train_users": 3}
    content["recommender"]["train"] |= {"adapter": adapter, "learning_rate": 0.02}
    run(tmp_path / "run", content)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics) == ["msr-untuned", "msr", "popularity", "item-knn"]
    before, after = ((tmp_path / f"run/journal/eval-{name}.jsonl").read_text() for name in list(metrics)[:2])
    assert before != after


def test_fixed_negatives_are_the_same_in_every_pass(world, tmp_path):
    content = tiny_recipe(world, arms={}, claims={})
    content["users"] |= {"mode": "none"}
    content["recommender"] |= {"variant": "text", "negatives": "fixed", "untuned": False}
    run(tmp_path / "run", content)
    assert sum(1 for _ in (tmp_path / "run/data/rows-msr.jsonl").open()) == 10
    result = json.loads((tmp_path / "run/models/msr/train_result.json").read_text())
    assert result["steps"] == 6  # 10 rows, twice, in steps of 4 that do not cross a pass


def test_scores_of_an_evaluation_are_those_of_single_prompts(whole, world):
    """P(yes) of the journal against plain transformers, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmctl.runs import read_journal

    tokenizer = AutoTokenizer.from_pretrained(world / "llm")
    model = AutoModelForCausalLM.from_pretrained(world / "llm").eval()
    record = next(read_journal(whole / "journal/eval-titles-untuned.jsonl"))
    recipe = parsed(tiny_recipe(world))
    from llmctl.msr.data.prepare import open_prepared
    from llmctl.msr.phases import MsrPhases

    with Run.open(whole, recipe, "msr run") as open_run:
        phases = MsrPhases(open_run, recipe, open_prepared(whole), True)
        arm = recipe.arm("titles")
        case, lists = next((case, lists) for case, _, lists in phases.reader.cases(arm) if lists is not None)
        question = phases.reader.question(arm)
        expected = []
        for item in lists.items:
            text = tokenizer.apply_chat_template(
                question.conversation(case, item), tokenize=False, add_generation_prompt=True
            )
            with torch.no_grad():
                ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
                p = model(ids).logits[0, -1].double().softmax(-1)
            yes, no = (
                sum(p[tokenizer.convert_tokens_to_ids(w)] for w in words)
                for words in (("yes", "Yes", "YES"), ("no", "No", "NO"))
            )
            expected.append(float(yes / (yes + no)))
        phases.close()
    assert record["user"] == case.user
    assert np.allclose(record["yes"], expected, atol=1e-5)
