"""A k-epsilon curve as a protocol of a job."""

import pytest

from llmctl.errors import UserError
from llmctl.jobs.protocols.reach_curve import curve_recipe
from llmctl.jobs.records import Shard
from llmctl.jobs.run import Engine, estimate_job
from llmctl.sampling import open_sampler

from ..helpers import job, results, rows, start

CURVE = {"states": {"count": 6, "lengths": [4, 6]}, "search": {"max_k": 2}, "controls": {"sample": 120}}


def curve_job(model, **changes):
    models = {"tiny": {"model": str(model), "engine": "transformers"}}
    protocols = {"single": {}, "curve": {"protocol": "reach_curve", "shards": 3, "curve": CURVE}}
    return job(**{"models": models, "protocols": protocols, "limit": 4} | changes)


@pytest.mark.slow
def test_a_curve_in_a_job_is_that_of_reach(tiny_model, tmp_path):
    from llmctl.reach.curves.recipe import CurveRecipe
    from llmctl.reach.curves.run import run_curve
    from llmctl.runs import Run

    alone = CurveRecipe.model_validate({"model": str(tiny_model), **CURVE})
    with Run.open(tmp_path / "alone", alone, "reach curve") as run:
        expected = run_curve(run, alone, quiet=True)["epsilon"]
    result = start(tmp_path / "job", curve_job(tiny_model), open_model=open_sampler)
    entry = result.summary["figures"][1]
    assert (entry["task"], entry["protocol"], entry["primary"]) == ("states", "curve", "reached")
    for k in (0, 1, 2):
        figure, point = entry["figures"][f"epsilon_{k}"], expected[str(k)]
        assert (figure["value"], figure["n"]) == (pytest.approx(point["value"]), point["n"])
    assert entry["figures"]["reached"]["value"] == pytest.approx(1 - expected["2"]["value"])
    pairs = [row for row in rows(tmp_path / "job") if row["protocol"] == "curve"]
    assert len(pairs) == 6 and all((row["answer"] is None) == (not row["is_correct"]) for row in pairs)
    start(tmp_path / "two", curve_job(tiny_model), Engine("processes", 2), open_model=open_sampler)
    assert results(tmp_path / "two") == results(tmp_path / "job")


def test_a_curve_takes_model_and_seed_from_the_job(tmp_path):
    recipe = curve_job("m", models={"tuned": {"model": "m", "adapter": "a", "dtype": "bfloat16"}})
    part = curve_recipe(recipe, Shard("tuned", "states", "curve", 5, 2, 3))
    assert (part.model, str(part.adapter), part.load.dtype) == ("m", "a", "bfloat16")
    assert (part.search.seed, part.shard.index, part.shard.of) == (5, 2, 3)
    assert (part.baseline, part.recheck, part.search.max_k) == ("none", (), 2)


def test_a_curve_samples_no_tokens(tmp_path):
    estimate = estimate_job(curve_job("m"), tmp_path / "job")
    assert estimate["new tokens, at most"] == 4 * 6
    assert estimate["shards"] == 1 + 3


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        ({"c": {"protocol": "reach_curve", "curve": {"states": {"cuont": 3}}}}, "unknown key.*cuont"),
        ({"single": {"curve": {}}}, "curve is given, but the protocol is single"),
    ],
)
def test_mistakes_of_a_curve_are_one_line(protocols, message):
    with pytest.raises(UserError, match=message):
        job(protocols=protocols)


def test_only_a_curve_needs_no_task():
    with pytest.raises(UserError, match="tasks are missing, but protocol single asks their problems"):
        job(tasks={})
    assert job(tasks={}, protocols=["reach_curve"]).pairs() == [("states", "reach_curve")]
    with pytest.raises(UserError, match="a task is named states"):
        job(tasks={"states": {"name": "sort"}}, protocols=["reach_curve"])
