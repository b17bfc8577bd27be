"""Jobs against a server that fails: through the command, as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from llmctl.cli.app import app
from llmctl.jobs.show import read_summary
from llmctl.sampling import server_client
from tests.sampling.fake_server import FakeServer, reply

from .helpers import job, rows, start

NEVER_TOLD = {"prompt_tokens": 5, "completion_tokens": 6}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(server_client, "FIRST_WAIT_S", 0.01)


def answer_rightly(body, **choice):
    """The sorted numbers, in a reply without token ids and log-probabilities; `usage` counts 6 tokens."""
    words = body["messages"][-1]["content"].replace(",", " ").split()
    data = reply(body | {"logprobs": False}, token_ids=False)
    for entry in data["choices"]:
        entry["message"]["content"] = " ".join(sorted(word for word in words if word.isdigit()))
        entry |= choice
    return data | {"usage": NEVER_TOLD}


def write_job(tmp_path, server, **changes):
    content = {
        "models": {"fake": {"engine": "server", "options": {"base_url": server.url, "retries": 0}}},
        "tasks": {"sort": {"options": {"min_length": 2, "max_length": 2}}},
        "protocols": ["single"],
        "sampling": {"max_tokens": 10},
        "limit": 8,
        "shard_size": 4,
    }
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(content | changes))  # JSON is YAML
    return path


def run(path, tmp_path, *options):
    return CliRunner().invoke(app, ["eval", "run", str(path), "--run", str(tmp_path / "run"), *options])


def test_an_always_right_server_with_an_outage_has_a_rate_of_one_and_exit_code_3(tmp_path):
    down = [True]

    def answer(body, number):
        return (503, {"error": "overloaded"}) if down[0] and number < 3 else answer_rightly(body)

    with FakeServer(answer) as server:
        path = write_job(tmp_path, server)
        first = run(path, tmp_path)
        (entry,) = read_summary(tmp_path / "run")["figures"]
        assert first.exit_code == 3
        assert "3 of 8 samples failed" in first.output and "asks for these alone again" in first.output
        assert entry["figures"]["m1_t1"]["value"] == 1.0 and entry["figures"]["m1_t1"]["n"] == 5
        assert entry["errors"] == 3
        down[0] = False
        before = len(server.bodies)
        assert run(path, tmp_path).exit_code == 0
        assert len(server.bodies) - before == 3
        assert read_summary(tmp_path / "run")["figures"][0]["figures"]["m1_t1"]["n"] == 8


def test_tokens_of_usage_count_against_the_budget(tmp_path):
    with FakeServer(lambda body, number: answer_rightly(body)) as server:
        path = write_job(tmp_path, server)
        stopped = run(path, tmp_path, "--max-cost-tokens", "45")
        assert stopped.exit_code == 4 and "stopped at 24 of 45 new tokens" in stopped.output
        shown = CliRunner().invoke(app, ["eval", "show", str(tmp_path / "run")])
        assert shown.exit_code == 0 and "the job is not finished" in shown.output
        prices = ["--set", "prices.fake.input=1000", "--set", "prices.fake.output=1000"]
        dear = run(path, tmp_path, *prices, "--max-cost", "0.05")
        assert dear.exit_code == 4 and "stopped at a cost of 0.044 of 0.05" in dear.output
        assert run(path, tmp_path, *prices, "--max-cost", "100").exit_code == 0
    entry = read_summary(tmp_path / "run")["models"]["fake"]
    assert entry["new_tokens"] == 48 and entry["cost"] == pytest.approx(0.088)


def test_every_status_is_in_the_results(tmp_path):
    too_long = {"error": {"message": "This model's maximum context length is 1000 tokens."}}
    filtered = {"error": {"message": "The response was filtered", "code": "content_filter"}}
    refused = {"finish_reason": "stop"}

    def answer(body, number):
        if number < 2:
            return 400, (too_long, filtered)[number]
        data = answer_rightly(body, **({"finish_reason": "length"} if number == 2 else refused))
        if number == 3:
            data["choices"][0]["message"] = {"content": None, "refusal": "I cannot help with that."}
        return (500, {"error": "broken"}) if number == 4 else data

    with FakeServer(answer) as server:
        models = {"fake": {"engine": "server", "options": {"base_url": server.url, "retries": 0}}}
        models["fake"]["options"]["max_parallel"] = 1
        start(tmp_path / "job", job(models=models, protocols=["single"]), open_model=open_server)
    statuses = [row["status"] for row in rows(tmp_path / "job")]
    assert sorted(statuses[:5]) == ["error", "refused", "refused", "too_long", "truncated"]
    assert statuses[5:] == ["ok"] * 5
    (entry,) = read_summary(tmp_path / "job")["figures"]
    assert entry["figures"]["m1_t1"]["n"] == 9 and entry["figures"]["m1_t1"]["value"] == pytest.approx(6 / 9)


def open_server(model, *, engine, adapter=None, **options):
    from llmctl.sampling import open_sampler

    return open_sampler("fake", engine="server", **options)
