import csv
import json

import pytest

from llmctl.errors import UserError
from llmctl.jobs.compare import compare_jobs
from llmctl.jobs.export import export_job

from .helpers import job, rows, start


@pytest.fixture
def finished(tmp_path):
    start(tmp_path / "job", job(seeds=[0, 1]))
    return tmp_path / "job"


def test_csv_has_every_row(finished):
    (path,) = export_job(finished, "csv")
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    found = rows(finished)
    assert len(read) == len(found) == 140
    assert [row["text"] for row in read] == [row["text"] for row in found]
    assert float(read[0]["reward"]) == found[0]["reward"]


def test_markdown_has_the_figures(finished, tmp_path):
    (path,) = export_job(finished, "markdown", tmp_path / "deep" / "summary.md")
    text = path.read_text()
    assert "| base | sort |" in text and "m1\\_t3" in text.replace("m1_t3", "m1\\_t3")


def test_inspects_logs_have_the_shape_that_its_reader_demands(finished):
    paths = export_job(finished, "inspect")
    assert len(paths) == 3
    logs = {log["eval"]["task"]: log for log in (json.loads(path.read_text()) for path in paths)}
    assert set(logs) == {"sort-single", "sort-parallel", "sort-sequential"}
    for log in logs.values():
        # the required fields of EvalLog, EvalSpec and EvalSample in inspect_ai 0.3
        assert {"version", "status", "eval", "results", "samples"} <= set(log)
        assert {"created", "task", "dataset", "model", "config"} <= set(log["eval"])
        pairs = [(sample["id"], sample["epoch"]) for sample in log["samples"]]
        assert len(set(pairs)) == len(pairs)
        for sample in log["samples"]:
            assert {"id", "epoch", "input", "target"} <= set(sample)
            assert sample["scores"]["llmctl"]["value"] in ("C", "I")
    assert [len(logs[f"sort-{name}"]["samples"]) for name in ("single", "parallel", "sequential")] == [
        20,
        60,
        20,
    ]
    turns = logs["sort-sequential"]["samples"][0]
    assert [message["role"] for message in turns["messages"]] == ["user", "assistant"] * 3
    assert turns["output"]["completion"] == turns["messages"][-1]["content"]


def test_two_jobs_are_compared_problem_by_problem(tmp_path):
    (tmp_path / "adapter").mkdir()
    tuned = {"tuned": {"model": "m", "engine": "server", "adapter": str(tmp_path / "adapter")}}
    start(tmp_path / "a", job(limit=40))
    start(tmp_path / "b", job(limit=40, models=tuned))
    found = compare_jobs(tmp_path / "a", tmp_path / "b")
    single = found["comparisons"][0]
    assert (single["first"], single["second"], single["figure"]) == ("base", "tuned", "m1_t1")
    assert single["difference"]["low"] > 0.3 and single["difference"]["n"] == 40
    assert any(line.startswith("models.") for line in found["differences"])


def test_jobs_that_ask_differently_are_not_compared(tmp_path):
    start(tmp_path / "a", job())
    start(tmp_path / "b", job(limit=8))
    with pytest.raises(UserError, match="ask differently .limit 10 -> 8.: compare jobs with the same"):
        compare_jobs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="is no job: give the folder of an `llmctl eval run`"):
        compare_jobs(tmp_path / "a", tmp_path / "nowhere")
