"""A changed checker is applied to stored replies without sampling."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.jobs.compare import compare_jobs
from llmctl.jobs.rescore import rescore_job
from llmctl.jobs.show import read_summary
from llmctl.sampling.scripted import ScriptedSampler

from .helpers import job, results, rows, start


def write_problems(path, *answers):
    rows = ({"prompt": f"Question {i}", "answer": answer} for i, answer in enumerate(answers))
    path.parent.mkdir(exist_ok=True)  # problems are named after the file, which keeps its name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def open_four(model, **_):
    return ScriptedSampler(lambda conversation, seed: "The answer is 4.", model)


@pytest.fixture
def finished(tmp_path):
    path = write_problems(tmp_path / "old" / "data.jsonl", "4", "5", "6")
    recipe = job(
        tasks={"jsonl": {"path": path, "split": "train"}}, protocols={"single": {}, "sequential": {}}
    )
    start(tmp_path / "job", recipe, open_model=open_four)
    return tmp_path / "job"


def test_a_changed_task_judges_the_stored_replies(finished, tmp_path):
    before = results(finished)
    changed = write_problems(tmp_path / "new" / "data.jsonl", "4", "4", "6")
    found = rescore_job(finished, [f"tasks.jsonl.path={changed}"])
    assert found.folder == tmp_path / "job-rescored" and results(finished) == before
    assert [line.split()[0] for line in found.differences] == ["tasks.jsonl.path"]
    assert found.changed == 1 + 5  # one sample, and five turns of one episode
    assert [row["text"] for row in rows(found.folder)] == [row["text"] for row in rows(finished)]
    value = {e["protocol"]: e["figures"]["m1_t1"]["value"] for e in read_summary(found.folder)["figures"]}
    assert value["single"] == pytest.approx(2 / 3)


def test_an_unchanged_task_gives_the_same_results(finished):
    found = rescore_job(finished)
    assert found.changed == 0 and list(found.differences) == []
    assert results(found.folder) == results(finished)
    (entry, _) = compare_jobs(finished, found.folder)["comparisons"]
    assert entry["difference"]["value"] == 0


def test_what_the_replies_depend_on_cannot_be_changed(finished, tmp_path):
    with pytest.raises(UserError, match=r"depend on what would change .sampling.temperature 1.0 -> 0.5"):
        rescore_job(finished, ["sampling.temperature=0.5"])
    shorter = write_problems(tmp_path / "short" / "data.jsonl", "4", "5", "6", "7")
    with pytest.raises(UserError, match="has another number of problems, which needs sampling"):
        rescore_job(finished, [f"tasks.jsonl.path={shorter}"], tmp_path / "elsewhere")
    renamed = write_problems(tmp_path / "short" / "other.jsonl", "4", "5", "6")
    with pytest.raises(UserError, match="no longer has the problem 'data:1'"):
        rescore_job(finished, [f"tasks.jsonl.path={renamed}"], tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(UserError, match="is the job itself"):
        rescore_job(finished, output=finished)
