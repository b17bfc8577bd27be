"""Ranking the candidates of an msr run as a protocol of a job."""

import hashlib
import json
import math

import numpy as np
import pytest

from llmctl.errors import UserError
from llmctl.jobs.compare import compare_jobs
from llmctl.jobs.export import export_job
from llmctl.jobs.plan import count_problems, plan_shards
from llmctl.jobs.protocols.msr_ranking import Ranking
from llmctl.jobs.run import Engine, check_job, estimate_job
from llmctl.jobs.show import all_tables
from llmctl.models.tiny import make_tiny_model
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.run import run_msr
from llmctl.runs import Run, read_journal
from llmctl.sampling import open_sampler
from llmctl.sampling.scripted import ScriptedSampler
from tests.msr.made_data import recipe_of, write_files

from ..helpers import job, results, rows, shard_lines, start

METRICS = ["auc", *(f"{metric}@{k}" for metric in ("hr", "mrr", "ndcg") for k in (3, 5, 10))]
TITLES = {"users": {"mode": "none", "history": 3}, "recommender": {"variant": "text"}}


def msr_recipe(world, **changes):
    """Two arms on ten lists of five: one that lists titles and is tuned, one that reads summaries."""
    model = str(world / "llm")
    sections = {
        "split": {"train": 0.8, "valid": 0.03},
        "candidates": {"negatives": 4},
        "users": {"llm": model, "max_tokens": 4, "chunk": 16},
        "recommender": {
            "model": model,
            "train_users": 4,
            "chunk": 4,
            "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2},
        },
        "arms": {"titles": TITLES, "told": {"recommender": {"train": None}}},
        "baselines": {"names": []},
        "cache": {"megabytes": 0},
    }
    return recipe_of(world / "data", **sections | changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_files(folder / "data")
    make_tiny_model(folder / "llm", can_answer=True, initializer_range=0.3, max_position_embeddings=2048)
    return folder


def prepared(world, folder, **changes):
    """A run with nothing but its data, which is all that the arm `titles` reads."""
    recipe = msr_recipe(world, **changes)
    with Run.open(folder, recipe, "msr prepare") as run:
        prepare_data(run, recipe)
    return folder


@pytest.fixture(scope="module")
def lists(world):
    return prepared(world, world / "lists")


@pytest.fixture(scope="module")
def whole(world):
    """A finished run."""
    recipe = msr_recipe(world)
    with Run.open(world / "whole", recipe, "msr run") as run:
        run_msr(run, recipe, quiet=True)
    return world / "whole"


class Opinions(ScriptedSampler):
    """Says yes to what its name and the question hash to."""

    def __init__(self, model, tokenizer):
        super().__init__(lambda *_: "yes", model)
        self.tokenizer = tokenizer

    def next_token_logprobs(self, conversations, tokens):
        found = []
        for conversation in conversations:
            text = self.info.model + conversation[0]["content"]
            share = (1 + hashlib.sha256(text.encode()).digest()[0]) / 258
            yes = [token for token in tokens if self.tokenizer.decode([token]).strip().lower() == "yes"]
            no = len(tokens) - len(yes)
            found.append(
                [math.log(share / len(yes) if token in yes else (1 - share) / no) for token in tokens]
            )
        return found


@pytest.fixture
def opinions(world):
    from llmctl.models.loading import load_tokenizer

    tokenizer = load_tokenizer(world / "llm")
    return lambda model, *, engine, adapter=None, **options: Opinions(f"{model}{adapter}", tokenizer)


def ranking_job(world, run, arm="titles", **changes):
    models = {"base": {"model": str(world / "llm"), "engine": "transformers"}}
    protocols = {"rank": {"protocol": "msr_ranking", "run": str(run), "arm": arm, "shards": 3}}
    return job(**{"models": models, "tasks": {}, "protocols": protocols, "limit": None} | changes)


def test_figures_are_those_of_the_run_and_models_are_compared_user_by_user(world, whole, tmp_path):
    models = {
        "base": {"model": str(world / "llm"), "engine": "transformers"},
        "tuned": {
            "model": str(world / "llm"),
            "engine": "transformers",
            "adapter": str(whole / "models/titles"),
        },
    }
    recipe = ranking_job(world, whole, models=models, seeds=[0, 1])
    result = start(tmp_path / "job", recipe, open_model=open_sampler)
    metrics = json.loads((whole / "metrics.json").read_text())
    for entry, name in zip(result.summary["figures"], ("titles-untuned", "titles"), strict=True):
        assert list(entry["figures"]) == [*METRICS, "answer_mass"]
        for metric in METRICS:
            found, expected = entry["figures"][metric], metrics[name][metric]
            assert found["n"] == expected["n"] == entry["problems"]
            assert found["value"] == pytest.approx(expected["value"])
            if expected["low"] != expected["high"]:
                assert (found["low"], found["high"]) == pytest.approx((expected["low"], expected["high"]))
        assert entry["candidate_hash"] == metrics[name]["candidate_hash"]
        assert (entry["primary"], entry["errors"], entry["unreadable"]) == ("auc", 0, 0)
    base, tuned = (entry["figures"]["answer_mass"]["value"] for entry in result.summary["figures"])
    assert 0 < base < 1 and abs(base - tuned) > 1e-3
    (compared,) = result.summary["comparisons"]
    (claim,) = json.loads((whole / "comparisons.json").read_text())
    assert claim["claim"] == "tuning betters titles" and compared["figure"] == "auc"
    for end in ("value", "low", "high", "n"):
        assert compared["difference"][end] == pytest.approx(claim["differences"]["auc"][end])
    users = result.summary["figures"][0]["problems"]
    assert len(shard_lines(tmp_path / "job")) == 2 * 3, "a ranking has no seeds to repeat"
    assert result.rows == 2 * users * 5 and result.tokens == 0
    assert "hash of the lists" in all_tables(result.summary)[0].to_markdown()
    report = (tmp_path / "job" / "report.md").read_text()
    assert "ranks the list by P(yes)" in report and "On ;" not in report and "pass_" not in report
    assert export_job(tmp_path / "job", "inspect") == []


def test_an_arm_is_asked_with_its_journalled_summaries(world, whole, tmp_path):
    start(tmp_path / "job", ranking_job(world, whole, "told"), open_model=open_sampler)
    records = list(read_journal(whole / "journal/eval-told-untuned.jsonl"))
    found = rows(tmp_path / "job")
    assert [r["problem"] for r in found] == [r["user"] for r in records for _ in range(5)]
    assert [r["sample"] for r in found] == [*range(5)] * len(records)
    assert np.allclose([r["reward"] for r in found], [p for r in records for p in r["yes"]], atol=1e-5)
    assert np.allclose(
        [float(r["answer"]) for r in found], [p for r in records for p in r["mass"]], rtol=1e-2
    )
    stored = [(r["item"], r["label"]) for r in _scores(whole / "scores/told-untuned.parquet")]
    assert [(r["text"], int(r["is_correct"])) for r in found] == stored
    assert {r["task"] for r in found} == {"candidates"} and {r["tokens"] for r in found} == {0}


def _scores(path):
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


@pytest.mark.slow
def test_results_do_not_depend_on_where_a_ranking_runs(world, lists, tmp_path):
    recipe = ranking_job(world, lists)
    start(tmp_path / "one", recipe, open_model=open_sampler)
    for engine in ("processes", "ray"):
        start(tmp_path / engine, recipe, Engine(engine, 2), open_model=open_sampler)
        assert results(tmp_path / engine) == results(tmp_path / "one")


@pytest.mark.parametrize(
    ("run", "arm", "message"),
    [
        (
            "nowhere",
            "titles",
            "protocols.rank: run .*nowhere is no run: give the folder of an `llmctl msr run`",
        ),
        ("lists", "title", "protocols.rank: arm is 'title', but the arms of .*lists are titles, told"),
        ("lists", "told", "protocols.rank: arm told reads summaries of users, which are not all there yet"),
        ("recipe", None, "protocols.rank: .*recipe has no prepared data"),
        ("job", None, "protocols.rank: .*is a recipe of kind 'eval', but this command needs .*'msr'"),
    ],
)
def test_a_run_that_can_not_be_ranked_on_is_told_before_a_model_is_loaded(
    world, lists, tmp_path, run, arm, message
):
    for name, recipe in (("recipe", msr_recipe(world)), ("job", job())):
        Run.open(tmp_path / name, recipe, "test").close()

    def refuse(*_, **__):
        raise AssertionError("no model is to be loaded")

    recipe = ranking_job(world, (world if run == "lists" else tmp_path) / run, arm)
    with pytest.raises(UserError, match=message) as error:
        start(tmp_path / "out", recipe, open_model=refuse)
    assert "\n" not in str(error.value)


def test_a_server_is_refused(world, lists):
    with pytest.raises(UserError, match="models.far.engine is server, but rank ranks by the probability"):
        check_job(ranking_job(world, lists, models={"far": {"engine": "server"}}))


def test_a_model_that_reads_no_images_fails_where_the_arm_shows_some(world, opinions, tmp_path):
    arms = {"seen": {"users": {"mode": "none"}, "recommender": {"variant": "image"}}}
    run = prepared(world, tmp_path / "seen", arms=arms)
    with pytest.raises(UserError, match="arm seen shows images, but .*llm reads none"):
        start(tmp_path / "job", ranking_job(world, run, None), open_model=opinions)


def test_lists_of_another_hash_are_not_compared(world, lists, opinions, tmp_path):
    same = prepared(
        world, tmp_path / "same", candidates={"negatives": 4, "path": lists / "data/candidates.parquet"}
    )
    other = prepared(world, tmp_path / "other", candidates={"negatives": 4}, seed=0, split={"train": 0.7})
    models = {"m": {"model": str(world / "llm"), "adapter": None, "engine": "transformers"}}
    for name, run in (("a", lists), ("b", same), ("c", other)):
        start(tmp_path / name, ranking_job(world, run, models=models), open_model=opinions)
    found = compare_jobs(tmp_path / "a", tmp_path / "b")
    assert found["comparisons"][0]["difference"]["value"] == 0
    assert any("run" in line for line in found["differences"])
    with pytest.raises(
        UserError, match="rank different candidates under rank .hash .* and .*candidates.path"
    ):
        compare_jobs(tmp_path / "a", tmp_path / "c")


def test_users_are_parted_into_shards_and_limited(world, lists, tmp_path):
    recipe = ranking_job(world, lists)
    users, _ = count_problems(recipe)["candidates of rank"]
    plan = plan_shards(recipe, count_problems(recipe), {})
    assert [shard.start for shard in plan] == [0, *(shard.stop for shard in plan[:-1])]
    assert plan[-1].stop == users and len({shard.key for shard in plan}) == 3
    assert max(s.stop - s.start for s in plan) - min(s.stop - s.start for s in plan) <= 1
    few = ranking_job(world, lists, limit=2)
    assert [(s.start, s.stop) for s in plan_shards(few, count_problems(few), {})] == [(0, 1), (1, 2)]
    assert estimate_job(recipe, tmp_path / "job")["new tokens, at most"] == 0


def test_other_summaries_make_other_shards(whole, world, tmp_path):
    recipe = ranking_job(world, whole, "told")
    ranking = Ranking("rank", recipe.protocols["rank"])
    before = ranking.digest()
    assert before != Ranking("rank", ranking_job(world, whole).protocols["rank"]).digest()
    journal = whole / "journal/users-told.jsonl"
    text = journal.read_text()
    record = json.loads(text.splitlines()[0])
    record["chunk"][0]["summary"] += "!"
    try:
        journal.write_text(json.dumps(record) + "\n" + text.split("\n", 1)[1])
        assert ranking.digest() != before
    finally:
        journal.write_text(text)
    assert ranking.digest() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ["msr_ranking"]}, "run is missing: an msr_ranking needs the folder of an msr run"),
        ({"protocols": {"single": {"run": "r"}}}, "run is given, but the protocol is single"),
        ({"protocols": {"single": {"arm": "a"}}}, "arm is given, but the protocol is single"),
        (
            {
                "tasks": {"candidates": {"name": "sort"}},
                "protocols": {"rank": {"protocol": "msr_ranking", "run": "r"}},
            },
            "a task is named candidates, as are the candidates of a msr_ranking: rename it",
        ),
    ],
)
def test_mistakes_of_a_ranking_are_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        job(**changes)
    assert "\n" not in str(error.value)
