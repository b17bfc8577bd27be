import json

import pytest

from llmctl.errors import UserError
from llmctl.tasks.rows import FileSource, HubSource

from .samples import write_rows


def numbers(source, split="train", seed=0):
    return [row.fields["n"] for row in source.rows(split, seed)]


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "train-0.jsonl", [{"n": n} for n in range(10)])
    write_rows(tmp_path / "train-1.jsonl", [{"n": n} for n in range(10, 15)])
    write_rows(tmp_path / "test.jsonl", [{"n": n} for n in range(100, 103)])
    return tmp_path


def test_a_folder_gives_each_split_its_files_in_order_of_names(folder):
    assert numbers(FileSource(folder)) == list(range(15))
    assert numbers(FileSource(folder), "test") == [100, 101, 102]
    assert FileSource(folder).count("train") == 15


def test_a_file_is_every_split(folder):
    source = FileSource(folder / "test.jsonl")
    assert numbers(source, "train") == numbers(source, "test") == [100, 101, 102]


def test_another_seed_permutes_the_rows_of_all_files(folder):
    permuted = numbers(FileSource(folder), seed=1)
    assert sorted(permuted) == list(range(15))
    assert permuted != list(range(15))
    assert permuted == numbers(FileSource(folder), seed=1) != numbers(FileSource(folder), seed=2)


def test_keys_stay_with_their_rows_under_a_permutation(folder):
    keys = {row.fields["n"]: row.key for row in FileSource(folder).rows("train", 0)}
    assert keys == {row.fields["n"]: row.key for row in FileSource(folder).rows("train", 5)}
    assert len(set(keys.values())) == 15


def test_rows_before_a_broken_one_are_given(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n\n{"n": \n{"n": 3}\n')
    rows = FileSource(path).rows("train", 0)
    assert next(rows).fields == {"n": 1}
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3: not a JSON object"):
        next(rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]\n", "line 1: a JSON list, but one JSON object a line"),
        (b"\xff\xfe\n", "line 1: not a JSON object"),
        (b"[" * 100_000, "line 1: not a JSON object"),
        (b"", "has no rows for split 'train'"),
        (b"\n \n", "has no rows"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_bad_files_are_named(tmp_path, content, message, seed):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(FileSource(path).rows("train", seed))


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\n')
    assert numbers(FileSource(path)) == [1]


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file or folder at .*nothing"):
        FileSource(tmp_path / "nothing")


def test_a_folder_without_the_split_names_what_it_has(folder):
    with pytest.raises(UserError, match=r"no validation\*\.jsonl .*\(it has test\.jsonl, train-0\.jsonl"):
        list(FileSource(folder).rows("validation", 0))


@pytest.mark.parametrize("value", [None, "", "  ", [1], True])
def test_a_field_that_is_no_text_names_file_line_and_field(tmp_path, value):
    path = write_rows(tmp_path / "rows.jsonl", [{"a": value}])
    (row,) = FileSource(path).rows("train", 0)
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: field 'a' is "):
        row.text("a")
    with pytest.raises(UserError, match=r"line 1: field 'b' is missing.*the row has 'a'"):
        row.text("b")


def test_numbers_in_fields_are_spelled_plainly(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"a": 2.0, "b": 7, "c": 0.25}])
    (row,) = FileSource(path).rows("train", 0)
    assert [row.text(name) for name in "abc"] == ["2", "7", "0.25"]


def test_reading_one_row_reads_no_more_than_a_buffer(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("w") as stream:
        for n in range(50_000):
            stream.write(json.dumps({"n": n, "text": "x" * 100}) + "\n")
        stream.write("broken\n")
    rows = FileSource(path).rows("train", 0)
    assert next(rows).fields["n"] == 0  # the broken end isn't reached


def test_the_hub_is_asked_only_for_rows_and_its_configurations_follow_one_another(monkeypatch):
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        return [{"n": f"{config}{n}"} for n in range(2)]

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = HubSource("some/set", ("a", "b"), ("train", "test"), "task")
    assert calls == []
    assert numbers(source) == ["a0", "a1", "b0", "b1"]
    assert sorted(numbers(source, seed=4)) == ["a0", "a1", "b0", "b1"]
    assert [row.key for row in source.rows("train", 0)] == [
        "a:train:0",
        "a:train:1",
        "b:train:0",
        "b:train:1",
    ]
    assert source.count("train") == 4
    assert calls == [("some/set", "a", "train"), ("some/set", "b", "train")]
    with pytest.raises(UserError, match="no split 'dev', only train, test"):
        numbers(source, "dev")


def test_without_the_hub_the_way_out_is_a_path(monkeypatch):
    import datasets

    def load_dataset(name, config, split):
        raise ConnectionError("no route\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        UserError, match=r"task cannot be loaded from the Hub \(some/set: no route\): give path="
    ) as error:
        numbers(HubSource("some/set", (None,), ("train",), "task"))
    assert "\n" not in str(error.value)
