"""Logs that inspect_ai 0.3.285 and lm-eval 0.4.13 wrote themselves, and what is refused."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.jobs.logs import read_log
from llmctl.jobs.results import result_schema

MADE = Path(__file__).with_name("made_by_tools")
LM_EVAL = sorted(MADE.glob("samples_*.jsonl"))


def test_an_eval_archive_of_inspect_ai_is_read_without_the_package():
    log = read_log(MADE / "inspect_ai-a.eval")
    assert (log.tool, log.model) == ("inspect_ai", "mockllm/model")
    assert [(one.task, one.metric) for one in log.scores] == [("t", "match"), ("t", "includes")]
    match = log.find("t", "match")
    assert len(match.values) == 12  # 12 samples in 2 epochs each
    assert set(match.values.values()) <= {0.0, 0.5, 1.0}
    assert match.errors == 0


def inspect_json(folder, samples, status="success"):
    content = {"version": 2, "status": status, "eval": {"task": "t", "model": "m"}, "samples": samples}
    (folder / "2026-log.json").write_text(json.dumps(content))
    return folder / "2026-log.json"


def test_letters_numbers_and_several_values_of_a_json_log_are_scores(tmp_path):
    samples = [
        {
            "id": 1,
            "input": "a",
            "scores": {"match": {"value": "C"}, "judge": {"value": {"style": 3, "tone": True}}},
        },
        {
            "id": 2,
            "input": "b",
            "scores": {"match": {"value": "P"}, "judge": {"value": {"style": 1, "tone": "no"}}},
        },
    ]
    log = read_log(inspect_json(tmp_path, samples))
    assert log.find("t", "match").values == {"1": 1.0, "2": 0.5}
    assert log.find("t", "judge/style").values == {"1": 3.0, "2": 1.0}
    assert log.find("t", "judge/tone").values == {"1": 1.0, "2": 0.0}


def test_a_failed_sample_is_an_error_and_no_wrong_answer(tmp_path):
    samples = [
        {"id": 1, "input": "a", "scores": {"match": {"value": "C"}}},
        {"id": 2, "input": "b", "scores": {}, "error": {"message": "timeout"}},
        {"id": 3, "input": "c"},
    ]
    match = read_log(inspect_json(tmp_path, samples)).find("t", "match")
    assert match.values == {"1": 1.0}
    assert match.errors == 2


def test_samples_of_lm_eval_are_read_and_named_after_their_task(tmp_path):
    log = read_log(LM_EVAL[0])
    assert log.tool == "lm-eval"
    assert {(one.task, one.metric) for one in log.scores} == {
        ("arithmetic", "acc"),
        ("arithmetic", "acc_norm"),
    }
    assert len(log.find("arithmetic", "acc").values) == 20


def test_of_a_folder_with_two_runs_of_a_task_the_newest_counts(tmp_path):
    for path in LM_EVAL:
        shutil.copy(path, tmp_path)
    assert read_log(tmp_path).scores[0].values == read_log(LM_EVAL[1]).scores[0].values


def test_each_filter_of_lm_eval_is_a_metric_of_its_own(tmp_path):
    lines = [
        {"doc_id": 0, "filter": name, "metrics": ["exact_match"], "exact_match": value, "doc_hash": "x"}
        for name, value in (("strict", 0.0), ("loose", 1.0))
    ]
    path = tmp_path / "samples_gsm8k_2026-01-01T00-00-00.000000.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(path)
    assert log.find("gsm8k", "exact_match,strict").values == {"0": 0.0}
    assert log.find("gsm8k", "exact_match,loose").values == {"0": 1.0}


@pytest.fixture()
def job(tmp_path):
    """The results of a job with two models."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for model, right in (("base", 0), ("tuned", 1)):
        for problem in range(3):
            for sample in range(2):
                is_error = model == "base" and problem == 2
                rows.append(
                    {
                        "model": model,
                        "adapter": None,
                        "task": "sort",
                        "protocol": "parallel",
                        "seed": 0,
                        "problem": str(problem),
                        "sample": sample,
                        "turn": 1,
                        "text": "",
                        "reward": 0.0,
                        "tokens": 1,
                        "is_correct": bool(right and sample),
                        "answer": None,
                        "error": "timeout" if is_error else None,
                    }
                )
    (tmp_path / "job").mkdir()
    parquet.write_table(
        pa.Table.from_pylist(rows, schema=result_schema()), tmp_path / "job" / "results.parquet"
    )
    return tmp_path / "job"


def test_a_model_of_a_job_is_named_behind_a_colon(job):
    log = read_log(f"{job}:tuned")
    assert (log.tool, log.model) == ("llmctl", "tuned")
    assert log.find("sort parallel", "accuracy").values == {"0": 0.5, "1": 0.5, "2": 0.5}
    base = read_log(f"{job}:base").find("sort parallel", "accuracy")
    assert (base.values, base.errors) == ({"0": 0.0, "1": 0.0}, 1)


def test_a_job_of_several_models_asks_which(job):
    with pytest.raises(
        UserError, match=r"holds 2 models, and no model is named: give one of .*:base, .*:tuned"
    ):
        read_log(job)
    with pytest.raises(UserError, match="it has no model 'x'"):
        read_log(f"{job}:x")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.eval", b"no archive", "is no log of inspect_ai"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.json", b'{"results": {}, "config": {}}', "run lm-eval with --log_samples"),
        ("a.json", b"{}", "is no log that is known here"),
        ("a.jsonl", b"{}\n", "line 1: no doc_id"),
        ("a.jsonl", b"\n{", "line 2: not JSON"),
        ("a.txt", b"", "is no log that is known here"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_log(tmp_path / name)


def test_an_archive_that_is_still_written_is_told_of(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(UserError, match="has no header yet"):
        read_log(tmp_path / "a.eval")


def test_a_packed_member_may_not_be_larger_than_allowed():
    from llmctl.jobs.logs.archive import read_member

    with zipfile.ZipFile(MADE / "inspect_ai-a.eval") as archive:
        assert json.loads(read_member(archive, "header.json"))["status"] == "success"
        with pytest.raises(UserError, match="larger than 100 bytes"):
            read_member(archive, "summaries.json", 100)
        with pytest.raises(KeyError):
            read_member(archive, "nothing.json")


def test_a_missing_file_and_an_empty_folder_list_what_can_be_given(tmp_path):
    for given in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match=r"give an .eval or .json log of inspect_ai"):
            read_log(given)
