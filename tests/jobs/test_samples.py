"""What becomes of samples: errors are left out and asked again, too long prompts do not lose a model."""

import threading

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.jobs.attempts import find_todo, latest_lines
from llmctl.jobs.export import export_job
from llmctl.jobs.partial import job_output
from llmctl.jobs.prices import ShardPrices
from llmctl.jobs.records import Shard
from llmctl.jobs.show import read_summary
from llmctl.sampling.common import find_too_long
from llmctl.sampling.scripted import ScriptedSampler

from .helpers import job, results, rows, shard_lines, start


def sort_rightly(conversation):
    words = conversation[-1]["content"].replace(",", " ").split()
    return " ".join(sorted(word for word in words if word.isdigit()))


class Outage:
    """An always right server that fails while it is down; counts the samples that it was asked for."""

    def __init__(self, down=0, fails_later=False):
        self.down, self.asked, self._lock = down, 0, threading.Lock()
        self.fails_later, self._first = fails_later, None  # messages of a first turn

    def open(self, model, **_):
        return ScriptedSampler(self.reply, model)

    def reply(self, conversation, seed):
        with self._lock:
            self.asked += 1
            self._first = self._first or len(conversation)
            if self.down and (not self.fails_later or len(conversation) > self._first):
                self.down -= 1
                raise EngineError("the server answered 503")
        return sort_rightly(conversation)


def metric(folder, name, protocol="single"):
    (entry,) = [e for e in read_summary(folder)["figures"] if e["protocol"] == protocol]
    return entry["figures"][name]["value"], entry


def test_an_outage_is_counted_and_left_out_of_the_metrics(tmp_path):
    server = Outage(down=3)
    result = start(tmp_path / "job", job(protocols=["single"]), open_model=server.open)
    value, entry = metric(tmp_path / "job", "m1_t1")
    assert value == 1.0 and entry["figures"]["m1_t1"]["n"] == 7
    assert (entry["samples"], entry["errors"]) == (10, 3)
    assert entry["statuses"] == {"ok": 7, "error": 3, "refused": 0, "too_long": 0, "truncated": 0}
    assert result.errors == 3 and result.has_too_many_errors
    assert [row["status"] for row in rows(tmp_path / "job")].count("error") == 3


@pytest.mark.parametrize("protocols", [["single"], {"parallel": {"n": 3}}, {"sequential": {"n": 3}}])
def test_the_same_command_asks_for_failed_samples_alone_again(tmp_path, protocols):
    recipe, server = job(protocols=protocols), Outage(down=3)
    start(tmp_path / "job", recipe, open_model=server.open)
    before, failed = server.asked, [row for row in rows(tmp_path / "job") if row["status"] == "error"]
    problems = {row["problem"] for row in failed}
    result = start(tmp_path / "job", recipe, open_model=server.open)
    per_problem = 1 if protocols == ["single"] else 3
    assert server.asked - before == per_problem * len(problems)
    assert (result.errors, result.has_too_many_errors) == (0, False)
    start(tmp_path / "whole", recipe, open_model=Outage().open)
    assert results(tmp_path / "job") == results(tmp_path / "whole")
    assert start(tmp_path / "job", recipe, open_model=server.open).computed == 0


def test_an_episode_that_an_error_cut_short_goes_on_from_its_last_turn(tmp_path):
    recipe, server = job(protocols={"sequential": {"n": 3}}), Outage(down=2, fails_later=True)
    start(tmp_path / "job", recipe, open_model=server.open)
    first, entry = metric(tmp_path / "job", "m1_t1", "sequential")
    assert first == 1.0 and entry["figures"]["m1_t1"]["n"] == 10  # the first turns were all answered
    assert entry["figures"]["m1_t3"]["n"] == 8 and entry["figures"]["m1_t3"]["value"] == 1.0
    before = server.asked
    start(tmp_path / "job", recipe, open_model=server.open)
    assert server.asked - before == 4  # turns 2 and 3 of two episodes
    start(tmp_path / "whole", recipe, open_model=Outage().open)
    assert results(tmp_path / "job") == results(tmp_path / "whole")


def test_errors_within_the_tolerated_share_are_no_failure(tmp_path):
    recipe = job(protocols=["single"], fail_on_error=0.3)
    result = start(tmp_path / "job", recipe, open_model=Outage(down=3).open)
    assert result.errors == 3 and not result.has_too_many_errors


def test_a_job_whose_every_sample_failed_has_no_value(tmp_path):
    recipe = job(protocols={"single": {}, "parallel": {"n": 3}, "sequential": {"n": 3}})
    start(tmp_path / "job", recipe, open_model=Outage(down=10**6).open)
    assert metric(tmp_path / "job", "m1_t1")[0] is None
    assert metric(tmp_path / "job", "pass_3", "parallel")[0] is None
    assert metric(tmp_path / "job", "p1_t3", "sequential")[0] is None


class Narrow(ScriptedSampler):
    """A sampler whose context holds some of the prompts only."""

    def chat(self, conversations, settings=None):
        replies = super().chat(conversations, settings)
        lengths = [len(c[-1]["content"]) for c in conversations]
        limit = max(lengths) + settings.max_tokens - 1
        found = [find_too_long(i, length, settings, limit) for i, length in enumerate(lengths)]
        return [long or reply for long, reply in zip(found, replies, strict=True)]


def test_one_prompt_that_is_too_long_does_not_lose_the_model(tmp_path):
    def open_narrow(model, **_):
        return Narrow(lambda conversation, seed: sort_rightly(conversation), model)

    recipe = job(tasks={"sort": {"options": {"min_length": 2, "max_length": 9}}}, protocols=["single"])
    result = start(tmp_path / "job", recipe, open_model=open_narrow)
    value, entry = metric(tmp_path / "job", "m1_t1")
    assert result.failed == {} and entry["problems"] == 10
    long = entry["statuses"]["too_long"]
    assert 0 < long < 10 and value == pytest.approx((10 - long) / 10)  # the model cannot answer these
    assert not result.has_too_many_errors


def open_failing_late(model, **_):
    calls = []

    def reply(conversation, seed):
        calls.append(conversation)
        if len(calls) > 8 and model == "late":
            raise UserError("the server refuses the key")
        return sort_rightly(conversation)

    return ScriptedSampler(reply, model)


def test_a_failed_model_keeps_the_shards_that_it_finished(tmp_path):
    models = {name: {"model": name, "engine": "server"} for name in ("late", "good")}
    result = start(tmp_path / "job", job(models=models, protocols=["single"]), open_model=open_failing_late)
    assert "the server refuses the key" in result.failed["late"]
    found = [row["model"] for row in rows(tmp_path / "job")]
    assert found.count("late") == 8 and found.count("good") == 10
    entries = {e["model"]: e for e in read_summary(tmp_path / "job")["figures"]}
    assert entries["late"]["is_partial"] and entries["late"]["problems"] == 8
    assert "is_partial" not in entries["good"]


def test_what_is_finished_can_be_shown_and_exported(tmp_path):
    recipe = job(protocols=["single"])
    start(tmp_path / "job", recipe, max_tokens=25)
    with job_output(tmp_path / "job") as output:
        assert output.summary["unfinished"] == 1
        assert output.summary["figures"][0]["problems"] == 4
    for form in ("csv", "markdown", "inspect"):
        assert export_job(tmp_path / "job", form)[0].is_file()
    with pytest.raises(UserError, match="is no job"):
        export_job(tmp_path / "nothing", "csv")


def test_a_deleted_part_is_computed_again(tmp_path):
    recipe = job(protocols=["single"])
    start(tmp_path / "job", recipe)
    before = results(tmp_path / "job")
    sorted((tmp_path / "job" / "parts").iterdir())[0].unlink()
    result = start(tmp_path / "job", recipe)
    assert result.computed == 1 and results(tmp_path / "job") == before
    assert start(tmp_path / "job", recipe).computed == 0


def test_a_journal_from_before_errors_were_counted_is_read_and_retried(tmp_path):
    import json

    recipe, server = job(protocols=["single"]), Outage(down=3)
    start(tmp_path / "job", recipe, open_model=server.open)
    path = tmp_path / "job" / "journal" / "shards.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["errors"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    latest = latest_lines(shard_lines(tmp_path / "job"))
    plan = [line.shard for line in latest.values()]
    assert len(find_todo(tmp_path / "job", plan, latest).retried) == 1
    assert start(tmp_path / "job", recipe, open_model=server.open).errors == 0


def test_the_cost_of_a_job_stays_below_its_maximum(tmp_path):
    recipe = job(protocols=["single"], prices={"base": {"input": 1000, "output": 10_000}})
    first = ShardPrices(recipe).most(Shard("base", "sort", "single", 0, 0, 4))
    stopped = start(tmp_path / "job", recipe, max_cost=1.001 * first)
    assert stopped.max_cost == 1.001 * first and 0 < stopped.cost <= first
    assert stopped.computed == 1
    done = start(tmp_path / "job", recipe, max_cost=1000)
    assert done.max_cost is None and done.summary["models"]["base"]["cost"] == pytest.approx(done.cost)


def test_a_maximum_cost_needs_the_price_of_every_model(tmp_path):
    with pytest.raises(UserError, match="--max-cost needs the price of every model, but base has none"):
        start(tmp_path / "job", job(), max_cost=1.0)
    with pytest.raises(UserError, match="prices has 'x', but the models are base"):
        job(prices={"x": {"input": 1}})
