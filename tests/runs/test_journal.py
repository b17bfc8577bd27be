import errno
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.runs.journal import Journal, read_journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal" / "collect.jsonl"


def records(path):
    return list(read_journal(path))


def test_records_come_back_in_order_with_their_keys(path):
    with Journal(path) as journal:
        journal.append("a", {"text": "é\u2028\n", "tokens": (1, 2)})
        journal.append("b", {})
    again = Journal(path)
    assert list(again) == [{"key": "a", "text": "é\u2028\n", "tokens": [1, 2]}, {"key": "b"}]
    assert "a" in again and "b" in again and "c" not in again
    assert len(again) == 2 and again.keys == ("a", "b")


def test_lone_surrogates_survive(path):
    with Journal(path) as journal:
        journal.append("a\ud800", {"text": "\udc00x"})
    assert "a\ud800" in Journal(path)
    assert records(path) == [{"key": "a\ud800", "text": "\udc00x"}]


def test_a_chunk_is_one_line_and_comes_back_as_its_records(path):
    with Journal(path) as journal:
        journal.append_many("chunk-0", [{"n": 1}, {"n": 2}])
        journal.append_many("chunk-1", [])
    assert len(path.read_bytes().splitlines()) == 2
    assert records(path) == [{"key": "chunk-0", "n": 1}, {"key": "chunk-0", "n": 2}]
    assert "chunk-1" in Journal(path)


@pytest.mark.parametrize("name", ["key", "chunk"])
def test_the_journals_own_field_names_are_refused(path, name):
    with pytest.raises(ValueError, match=f"field '{name}'"):
        Journal(path).append("a", {name: 1})


def test_a_second_record_under_a_key_is_refused(path):
    with Journal(path) as journal:
        journal.append("a", {"n": 1})
        with pytest.raises(UserError, match="holds the key 'a' already"):
            journal.append("a", {"n": 2})
    assert records(path) == [{"key": "a", "n": 1}]


def test_a_key_that_is_twice_in_the_file_is_refused_with_its_line(path):
    path.parent.mkdir()
    path.write_text('{"key": "a"}\n{"key": "b"}\n{"key": "a"}\n')
    with pytest.raises(UserError, match="line 3: the key 'a' is repeated"):
        Journal(path)


def test_not_a_number_is_refused_with_its_place(path):
    with pytest.raises(ValueError, match=r"scores\[1\] = nan is not a finite number"):
        Journal(path).append("a", {"scores": [0.5, float("nan")]})
    assert not path.exists()


def test_wherever_the_file_is_cut_the_rest_is_kept_and_the_end_is_the_same(path, caplog):
    def finish():
        with Journal(path) as journal:
            done = len(journal)
            for number in range(4):
                if f"k{number}" not in journal:
                    journal.append(f"k{number}", {"text": "ü" * number})
        return done

    finish()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        caplog.clear()
        assert finish() == whole[:cut].count(b"\n")
        assert path.read_bytes() == whole
        is_torn = cut > 0 and whole[cut - 1 : cut] != b"\n"
        assert ("is unfinished and is dropped" in caplog.text) == is_torn


def test_a_torn_line_stays_in_the_file_until_the_next_append(path):
    path.parent.mkdir()
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "te')
    journal = Journal(path)
    assert list(journal) == [{"key": "a"}]
    assert path.read_bytes().endswith(b'"te')
    journal.append("c", {})
    assert path.read_bytes() == b'{"key": "a"}\n{"key": "c"}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"key": "b", "te\n', "it is not JSON"),
        (b'{"key": "\xff"}\n', "it is not JSON"),
        (b"[1]\n", "not an object with a string"),
        (b'{"key": 7}\n', "not an object with a string"),
        (b'{"key": "b", "chunk": [1]}\n', "not a list of objects"),
    ],
)
def test_a_broken_line_in_the_middle_is_refused_with_its_number(path, line, reason):
    path.parent.mkdir()
    path.write_bytes(b'{"key": "a"}\n' + line + b'{"key": "c"}\n')
    with pytest.raises(UserError, match=f"line 2 is broken .*{reason}"):
        Journal(path)
    with pytest.raises(UserError, match="line 2 is broken"):
        records(path)


def test_iterating_while_appending_gives_what_was_there(path):
    with Journal(path) as journal:
        journal.append("a", {})
        walk = iter(journal)
        journal.append("b", {})
        assert [record["key"] for record in walk] == ["a"]
        assert [record["key"] for record in journal] == ["a", "b"]


def write_part_then_fail(monkeypatch, number):
    real = os.write

    def write(descriptor, data):
        if len(data) > 20:
            return real(descriptor, bytes(data)[:20])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", write)


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_the_journal_valid(path, monkeypatch):
    journal = Journal(path)
    journal.append("a", {"text": "first"})
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        write_part_then_fail(patch, errno.ENOSPC)
        with pytest.raises(UserError, match="cannot append to .*the disk is full"):
            journal.append("b", {"text": "x" * 25})
    assert path.read_bytes() == before
    assert "b" not in journal
    journal.append("b", {"text": "y"})  # space was freed
    assert [record["key"] for record in records(path)] == ["a", "b"]


def test_a_flush_that_fails_takes_the_line_back(path, monkeypatch):
    journal = Journal(path)
    journal.append("a", {})

    def fail(descriptor):
        raise OSError(errno.EDQUOT, "quota")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match="quota is used up"):
            journal.append("b", {})
    assert records(path) == [{"key": "a"}]


def test_ctrl_c_in_the_middle_of_a_write_takes_the_line_back(path, monkeypatch):
    journal = Journal(path)
    journal.append("a", {})

    def interrupt(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append("b", {})
    journal.append("b", {"n": 2})
    assert records(path) == [{"key": "a"}, {"key": "b", "n": 2}]


def test_every_append_is_flushed_to_the_disk(path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), real(descriptor))[1])
    with Journal(path) as journal:
        journal.append("a", {})
        after_first = len(flushed)
        journal.append("b", {})
    assert after_first == 2  # the line, and the name of the new file
    assert len(flushed) == 3


def test_threads_can_append_side_by_side(path):
    from concurrent.futures import ThreadPoolExecutor

    with Journal(path) as journal, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.append(f"k{number}", {"text": "x" * 500}), range(100)))
    assert {record["key"] for record in records(path)} == {f"k{number}" for number in range(100)}


def test_memory_grows_with_the_keys_and_not_with_the_records(path):
    import tracemalloc

    with Journal(path) as journal:
        for number in range(20):
            journal.append(f"k{number}", {"text": "x" * 500_000})  # 10 MB in all
    tracemalloc.start()
    assert sum(len(record["text"]) for record in Journal(path)) == 10_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def append_all(path):
    with Journal(path) as journal:
        for number in range(120):
            if f"k{number}" not in journal:
                size = 3_000_000 if number % 40 == 7 else 1 + 37 * number % 9000
                journal.append(f"k{number}", {"text": chr(97 + number % 26) * size})


def test_killed_at_random_moments_the_journal_ends_like_an_unbroken_one(tmp_path, run_and_kill):
    unbroken, broken = tmp_path / "unbroken.jsonl", tmp_path / "broken.jsonl"
    append_all(unbroken)
    rng = random.Random(3)
    target = unbroken.stat().st_size
    kills = 0
    for step in range(1, 13):
        wanted = target * step / 13 * rng.uniform(0.95, 1.05)

        def is_time(wanted=wanted):
            return broken.exists() and broken.stat().st_size >= wanted

        kills += run_and_kill(lambda: append_all(broken), is_time)
        lines = broken.read_bytes().split(b"\n")
        assert all(json.loads(line) for line in lines[:-1])
    assert kills >= 6
    append_all(broken)
    assert broken.read_bytes() == unbroken.read_bytes()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk_leaves_the_journal_valid(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        fill(disk / "collect.jsonl")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    journal = Journal(path)
    written = 0
    with pytest.raises(UserError, match="the disk is full; free some space"):
        for number in range(100):
            journal.append(f"k{number}", {"text": "x" * 30_001})
            written += 1
    assert 20 < written < 40
    assert [record["key"] for record in records(path)] == [f"k{number}" for number in range(written)]
    assert path.read_bytes().endswith(b"\n")
    journal.append("small", {})
    assert "small" in Journal(path)
    journal.close()
