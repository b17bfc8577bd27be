import errno
import os

import pytest

from llmctl.errors import UserError
from llmctl.jobs.records import Shard
from llmctl.jobs.results import Part, check_parts, merge_parts
from llmctl.jobs.run import Engine, estimate_job
from llmctl.jobs.show import read_summary
from llmctl.runs import Run
from llmctl.sampling.scripted import ScriptedSampler

from . import helpers
from .helpers import job, open_scripted, results, rows, shard_lines, start


def adapters(tmp_path, *names):
    """Model entries on one base, with adapter folders."""
    entries = {"base": {"model": "m", "engine": "server"}}
    for name in names:
        (tmp_path / name).mkdir()
        entries[name] = {"model": "m", "engine": "server", "adapter": str(tmp_path / name)}
    return entries


def test_one_row_a_sample_in_the_order_of_the_plan(tmp_path):
    result = start(tmp_path / "job", job())
    found = rows(tmp_path / "job")
    assert result.rows == len(found) == 10 * (1 + 3 + 3)
    assert result.computed == result.shards == 9
    columns = "model adapter task protocol seed problem sample turn text reward tokens is_correct answer "
    columns += "error status"
    assert list(found[0]) == columns.split()
    single = [row for row in found if row["protocol"] == "single"]
    assert [(row["sample"], row["turn"]) for row in single] == [(0, 1)] * 10
    turns = [row for row in found if row["protocol"] == "sequential"]
    assert [(row["sample"], row["turn"]) for row in turns] == [(0, 1), (0, 2), (0, 3)] * 10
    assert len({row["problem"] for row in found}) == 10


def test_every_sampler_has_the_threads_of_the_recipe(tmp_path, tiny_model):
    import torch

    seen, before = [], torch.get_num_threads()

    def open_noting(model, **_):
        seen.append(torch.get_num_threads())
        return open_scripted(model, engine="server")

    models = {"tiny": {"model": str(tiny_model), "engine": "transformers"}}
    start(tmp_path / "job", job(models=models, threads=3), open_model=open_noting)
    assert seen == [3] and torch.get_num_threads() == before


def test_the_report_says_what_was_asked_and_what_failed(tmp_path):
    models = {"<b>bad": {"model": "broken", "engine": "server"}, "good": {"model": "m", "engine": "server"}}
    start(tmp_path / "job", job(models=models))
    text = (tmp_path / "job" / "report.md").read_text()
    assert "| good |" in text and "broken can not be opened" in text and "equal compute" in text
    assert "<b>bad" not in (tmp_path / "job" / "report.html").read_text()


def test_every_protocol_begins_with_the_same_sample(tmp_path):
    start(tmp_path / "job", job())
    firsts = {}
    for row in rows(tmp_path / "job"):
        if (row["sample"], row["turn"]) == (0, 1):
            firsts.setdefault(row["problem"], set()).add(row["text"])
    assert all(len(texts) == 1 for texts in firsts.values())


def test_seeds_are_repetitions_with_other_samples(tmp_path):
    start(tmp_path / "job", job(seeds=[0, 1], protocols=["single"], limit=40, shard_size=40))
    texts = {0: [], 1: []}
    for row in rows(tmp_path / "job"):
        texts[row["seed"]].append((row["problem"], row["text"]))
    assert [p for p, _ in texts[0]] == [p for p, _ in texts[1]]
    assert texts[0] != texts[1]


def test_processes_give_the_bytes_of_one(tmp_path):
    recipe = job()
    start(tmp_path / "one", recipe)
    start(tmp_path / "two", recipe, Engine("processes", 2))
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_a_finished_job_computes_nothing_again(tmp_path):
    recipe = job()
    start(tmp_path / "job", recipe)
    before = results(tmp_path / "job")

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is left to compute")

    result = start(tmp_path / "job", recipe, open_model=refuse)
    assert (result.computed, result.rows) == (0, 70)
    assert results(tmp_path / "job") == before


def test_a_base_with_adapters_is_opened_once(tmp_path):
    helpers.OPENED.clear()
    start(
        tmp_path / "job", job(models=adapters(tmp_path, "a", "b") | {"n": {"model": "n", "engine": "server"}})
    )
    assert sorted(helpers.OPENED) == ["m", "n"]
    found = {row["model"]: row["adapter"] for row in rows(tmp_path / "job")}
    assert found == {"base": None, "a": str(tmp_path / "a"), "b": str(tmp_path / "b"), "n": None}


def test_a_model_that_fails_leaves_the_others_finished(tmp_path):
    models = {
        "bad": {"model": "broken", "engine": "server"},
        "gone": {"model": "/no/such/folder", "engine": "transformers"},
        "good": {"model": "m", "engine": "server"},
    }
    result = start(tmp_path / "job", job(models=models))
    assert result.failed == {
        "bad": "broken can not be opened",
        "gone": "model folder /no/such/folder does not exist: check the path",
    }
    assert {row["model"] for row in rows(tmp_path / "job")} == {"good"}
    assert read_summary(tmp_path / "job")["failed"] == result.failed


def test_a_job_without_a_usable_model_says_why(tmp_path):
    with pytest.raises(UserError, match="no model of the job can be used; bad: broken can not be opened"):
        start(tmp_path / "job", job(models={"bad": {"model": "broken", "engine": "server"}}))


def test_a_lost_worker_is_replaced_and_its_shard_taken_up_again(tmp_path):
    trigger = tmp_path / "trigger"
    trigger.touch()
    recipe = job(models={"base": {"model": str(trigger), "engine": "server"}})
    result = start(tmp_path / "lost", recipe, Engine("processes", 2), open_model=helpers.open_deadly)
    assert not trigger.exists()  # a worker was killed
    assert (result.failed, result.rows) == ({}, 70)
    start(tmp_path / "whole", recipe)
    assert results(tmp_path / "lost") == results(tmp_path / "whole")
    keys = [line["key"] for line in shard_lines(tmp_path / "lost")]
    assert len(keys) == len(set(keys)) == 9


def test_a_model_that_kills_every_worker_is_given_up(tmp_path):
    models = {name: {"model": name, "engine": "server"} for name in ("deadly", "good")}
    recipe = job(models=models, workers={"retries": 1}, protocols=["single"])
    result = start(tmp_path / "job", recipe, Engine("processes", 1), open_model=helpers.open_always_deadly)
    assert list(result.failed) == ["deadly"]
    assert "its worker was lost 2 times on shard deadly/sort/single" in result.failed["deadly"]
    assert "ended with code -9" in result.failed["deadly"]
    assert {row["model"] for row in rows(tmp_path / "job")} == {"good"}


def test_tokens_are_never_passed_and_more_of_them_finish_the_job(tmp_path):
    recipe = job(protocols=["single"])  # shards of at most 24, 24 and 12 tokens
    stopped = start(tmp_path / "job", recipe, max_tokens=25)
    assert stopped.budget == 25 and stopped.rows is None
    assert 0 < stopped.tokens <= 25
    assert not (tmp_path / "job" / "results.parquet").exists()
    with pytest.raises(UserError, match="is not finished"):
        read_summary(tmp_path / "job")
    again = start(tmp_path / "job", recipe, max_tokens=1000)
    assert again.budget is None and again.computed == 3 - stopped.computed
    start(tmp_path / "whole", recipe)
    assert results(tmp_path / "job") == results(tmp_path / "whole")


def test_two_jobs_in_one_folder_are_refused(tmp_path):
    recipe = job()
    with Run.open(tmp_path / "job", recipe, "eval run"):
        with pytest.raises(UserError, match="is in use by process"):
            start(tmp_path / "job", recipe)


def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path, monkeypatch):
    from llmctl.jobs import recorder

    real, calls = recorder.write_bytes, []

    def write(path, data):
        calls.append(path)
        if len(calls) == 3:
            from llmctl.runs.files import disk_error

            raise disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), f"write {path}")
        real(path, data)

    monkeypatch.setattr(recorder, "write_bytes", write)
    with pytest.raises(UserError, match="the disk is full; free some space"):
        start(tmp_path / "job", job())
    assert len(shard_lines(tmp_path / "job")) == 2
    monkeypatch.undo()
    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    assert start(tmp_path / "job", job()).computed == 7


def test_changed_problems_are_refused_on_resuming(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "1+1", "answer": "2"}\n')
    recipe = job(tasks={"jsonl": {"path": str(data)}})
    start(tmp_path / "job", recipe)
    data.write_text('{"prompt": "1+2", "answer": "3"}\n')
    with pytest.raises(UserError, match="started with other inputs: problems of jsonl"):
        start(tmp_path / "job", recipe)


def shard(number):
    return Shard("m", "t", "p", 0, number, number + 1, f"key{number}")


def part(number, path="part"):
    return Part(shard(number), path, 1, "")


def test_merges_with_missing_or_doubled_shards_are_refused(tmp_path):
    plan = [shard(number) for number in range(3)]
    assert check_parts(plan, [part(2), part(0), part(1)]) == [part(0), part(1), part(2)]
    with pytest.raises(UserError, match="1 of 3 shards are missing .first: m/t/p/seed 0/1-2"):
        check_parts(plan, [part(0), part(2)])
    with pytest.raises(UserError, match="shard m/t/p/seed 0/0-1 appears twice"):
        check_parts(plan, [part(0), part(1), part(2), part(0)])
    with pytest.raises(UserError, match="does not belong to this job's plan"):
        check_parts(plan[:2], [part(0), part(1), part(2)])


def test_a_changed_part_is_refused(tmp_path):
    recipe = job(protocols=["single"])
    start(tmp_path / "job", recipe)
    victim = sorted((tmp_path / "job" / "parts").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not what was written"):
        start(tmp_path / "job", recipe)


def test_no_row_is_written_where_parts_are_missing(tmp_path):
    with pytest.raises(UserError, match="missing"):
        merge_parts([shard(0)], [], tmp_path / "results.parquet")
    assert not list(tmp_path.glob("*.parquet"))


def test_an_estimate_says_where_no_rate_was_measured(tmp_path):
    recipe = job()
    first = estimate_job(recipe, tmp_path / "job")
    assert first["samples"] == 70 and first["new tokens, at most"] == 420
    assert first["time of base"] == "no measured rate yet"
    start(tmp_path / "job", recipe)
    assert "tokens/s as measured" in estimate_job(recipe, tmp_path / "job")["time of base, at most"]
    elsewhere = estimate_job(recipe, tmp_path / "other")  # remembered in the cache
    assert "tokens/s as measured" in elsewhere["time of base, at most"]


def test_lone_surrogates_of_a_model_do_not_stop_a_job(tmp_path):
    def open_odd(model, **_):
        return ScriptedSampler(lambda conversation, seed: "odd \ud800", model)

    start(tmp_path / "job", job(protocols=["single"]), open_model=open_odd)
    assert rows(tmp_path / "job")[0]["text"] == "odd ?"


def test_scripted_opening_is_what_the_tests_say():
    assert open_scripted("m", engine="server").info.model == "m"
