"""Rows of every form, and validation rows that no training row repeats."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.runs.recipe import parse_recipe
from llmctl.training.data.sources import get_rows, to_row
from llmctl.training.recipe import TrainDataSettings


def data(**fields):
    return parse_recipe(TrainDataSettings, fields, "test")


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def texts(tmp_path):
    return lines(tmp_path / "texts.jsonl", [{"text": f"text {number}"} for number in range(20)])


def test_rows_of_every_form_become_messages_or_text():
    user, reply = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    whole = {"messages": [user, reply]}
    assert to_row({**whole, "id": 7}, "row 1") == whole
    assert to_row({"prompt": "q", "completion": "a", "weight": 2.0}, "row 1") == {**whole, "weight": 2.0}
    assert to_row({"prompt": [user], "completion": [reply]}, "row 1") == whole
    assert to_row({"story": "once"}, "row 1", "story") == {"text": "once"}
    with pytest.raises(UserError, match="row 1 has 'story', but messages, or prompt .* set data.text_field"):
        to_row({"story": "once"}, "row 1")


def test_validation_rows_are_held_out_by_the_seed(texts):
    first = get_rows(data(path=texts, validation_rows=5))
    held = [row["text"] for row in first.validation]
    assert len(held) == 5 and len(first.training) == 15
    assert not set(held) & {row["text"] for row in first.training}
    assert held != [f"text {number}" for number in range(5)]  # a file may be sorted
    assert get_rows(data(path=texts, validation_rows=5)) == first
    fewer = get_rows(data(path=texts, validation_rows=5, rows=3))
    assert fewer.validation == first.validation and fewer.training == first.training[:3]
    assert get_rows(data(path=texts, validation_rows=5, seed=1)).validation != first.validation


def test_a_training_row_that_repeats_a_validation_row_is_left_out(tmp_path):
    path = lines(tmp_path / "twice.jsonl", [{"text": f"text {number % 10}"} for number in range(20)])
    rows = get_rows(data(path=path, validation_rows=4))
    assert not {row["text"] for row in rows.training} & {row["text"] for row in rows.validation}
    assert rows.repeats >= 2 and len(rows.training) + rows.repeats == 16


def test_two_files_keep_their_parts(texts, tmp_path):
    other = lines(tmp_path / "other.jsonl", [{"text": f"other {number}"} for number in range(9)])
    rows = get_rows(data(path=texts, validation_path=other, validation_rows=4))
    assert len(rows.training) == 20 and len(rows.validation) == 4
    assert all(row["text"].startswith("other") for row in rows.validation)


def test_a_task_gives_conversations_with_its_solutions_and_the_problems_behind_validation():
    rows = get_rows(data(rows=6, validation_rows=3))  # the built-in sort task
    assert len(rows.training) == 6 and len(rows.problems) == 3
    for row, problem in zip(rows.validation, rows.problems, strict=True):
        assert row["messages"][-1] == {"role": "assistant", "content": problem.solution}
        assert row["messages"][-2] == {"role": "user", "content": problem.prompt}


def test_paragraphs_of_a_text_file_are_rows_and_blank_texts_are_none(tmp_path):
    (tmp_path / "a.txt").write_text("one\nline\n\n\n two \n\nthree\n")
    rows = get_rows(data(path=str(tmp_path / "a.txt"), validation_rows=1))
    found = {row["text"] for row in [*rows.training, *rows.validation]}
    assert found == {"one\nline", "two", "three"}
    path = lines(tmp_path / "blank.jsonl", [{"text": ""}, {"text": " \n"}, {"text": "a"}, {"text": "b"}])
    assert len(get_rows(data(path=path, validation_rows=1)).training) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "nowhere.jsonl"}, "no file or folder at nowhere.jsonl"),
        ({"path": "nowhere.txt"}, "nowhere.txt cannot be read"),
        ({"validation_rows": 20}, "20 rows and data.validation_rows is 20, which leaves none to train on"),
    ],
)
def test_bad_data_is_one_line(texts, fields, message):
    with pytest.raises(UserError, match=message):
        get_rows(data(**({"path": texts} | fields)))


def test_a_task_without_reference_solutions_is_refused(tmp_path):
    path = lines(tmp_path / "bare.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    with pytest.raises(UserError, match="problem bare:1 of task jsonl has no reference solution to learn"):
        get_rows(data(task={"name": "jsonl", "path": path}))


def test_two_sources_are_refused(texts):
    with pytest.raises(UserError, match="data.task is sort and data.path is .*set data.task=null"):
        data(path=texts, task={})
