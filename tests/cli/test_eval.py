import json

import pytest
import yaml

MODELS = {"a": {"model": "m"}, "b": {"model": "n"}}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job file whose models are scripted."""
    from llmctl.jobs.run import run_job
    from tests.jobs.helpers import open_scripted

    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(run_job.__kwdefaults__, "open_model", open_scripted)

    def write(models=MODELS, **changes):
        content = {
            "kind": "eval",
            "models": {name: {"engine": "server", **spec} for name, spec in models.items()},
            "tasks": {"sort": {"options": {"min_length": 2, "max_length": 2}}},
            "protocols": {"single": {}, "parallel": {"n": 3}},
            "sampling": {"temperature": 1.0, "max_tokens": 6},
            "limit": 10,
            "shard_size": 4,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return str(path)

    return write


def call(llmctl, *arguments):
    done = llmctl(*arguments)
    return done.code, done.out, done.err


def test_a_job_is_run_shown_compared_and_exported(job, llmctl, tmp_path):
    code, out, err = call(llmctl, "eval", "run", job())
    assert (code, "80 rows" in out, "eval: 80/80 samples" in err) == (0, True, True)
    assert (tmp_path / "runs" / "small" / "results.parquet").is_file()
    code, out, _ = call(llmctl, "eval", "show", "runs/small")
    assert code == 0 and "b - a" in out and "m3_t1" in out
    code, out, _ = call(llmctl, "eval", "compare", "runs/small", "runs/small", "--json")
    assert code == 0 and {e["p_value"] for e in json.loads(out)["comparisons"]} == {1.0}
    code, out, _ = call(llmctl, "eval", "export", "runs/small", "--format", "csv")
    assert (code, out.strip()) == (0, "runs/small/results.csv")


def test_json_is_one_document(job, llmctl):
    code, out, err = call(llmctl, "eval", "run", job(), "--json", "--limit", "4")
    found = json.loads(out)
    assert (code, err, found["rows"], found["shards"]) == (0, "", 32, 4)
    assert found["summary"]["figures"][0]["problems"] == 4


def test_a_failed_model_is_reported_with_exit_code_3(job, llmctl):
    code, _, err = call(llmctl, "eval", "run", job({"bad": {"model": "broken"}, "good": {"model": "m"}}))
    assert code == 3
    assert "model bad failed, the others are done: broken can not be opened" in err


def test_a_model_that_is_not_there_is_told_before_the_others_begin(job, llmctl, tmp_path, caplog):
    lost = {"model": "m", "engine": "transformers", "adapter": str(tmp_path / "nowhere")}
    code, _, err = call(llmctl, "eval", "run", job({"lost": lost, "good": {"model": "m"}}))
    assert (code, "model lost failed, the others are done: models.lost.adapter is" in err) == (3, True)
    (told,) = caplog.records
    assert told.getMessage().startswith("model lost cannot be used, the others go on: models.lost.adapter")


def test_a_used_up_budget_is_told_with_exit_code_4(job, llmctl):
    code, _, err = call(llmctl, "eval", "run", job(), "--max-cost-tokens", "80")
    assert code == 4
    assert "of 80 new tokens" in err and "a greater --max-cost-tokens goes on from here" in err
    assert call(llmctl, "eval", "run", job())[0] == 0


def test_a_dry_run_estimates_from_what_was_measured(job, llmctl, tmp_path):
    code, out, _ = call(llmctl, "eval", "run", job(), "--dry-run")
    assert code == 0 and "# samples: 80" in out and "# time of a: no measured rate yet" in out
    assert not (tmp_path / "runs").exists()
    call(llmctl, "eval", "run", job())
    assert "tokens/s as measured" in call(llmctl, "eval", "run", job(), "--dry-run")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tasks.srot={}"], "no task 'srot'; the nearest is 'sort'"),
        (["--set", "protocols.votes={}"], "no protocol 'votes'; the nearest is"),
        (["--workers", "2"], "engine local is one process"),
        (
            ["--engine", "ray", "--address", "127.0.0.1:1"],
            "no Ray cluster answers at 127.0.0.1:1 (Connection refused)",
        ),
    ],
)
def test_mistakes_are_one_line(job, llmctl, arguments, message):
    code, out, err = call(llmctl, "eval", "run", job(), *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("eval: ")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert message in lines[0]


def test_without_ray_the_line_says_how_to_get_it(job, llmctl, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else real(name, *rest)
    )
    code, _, err = call(llmctl, "eval", "run", job(), "--engine", "ray")
    assert code == 2 and "pip install ray" in err
