import json

import pytest

from llmctl.errors import UserError
from llmctl.explorer.files.pair_index import PairIndex


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [{"verdict": "reached" if k is not None else "unknown", "k": k, "id": n}
             for n, k in enumerate([0, None, 1, 0, None, 0])]  # fmt: skip
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def test_pairs_are_counted_and_paged_by_k(path):
    index = PairIndex(path)
    assert index.total == 6 and index.counts == {0: 3, None: 2, 1: 1}
    assert [pair["id"] for pair in index.page(0, 1, 5)] == [3, 5]
    assert [pair["id"] for pair in index.page(None, 0, 1)] == [1]
    assert index.page(7, 0, 5) == []


def test_k_is_found_wherever_it_stands_in_a_line(path):
    path.write_text('{"id": 1, "k": 3}\n')
    assert PairIndex(path).counts == {3: 1}


def test_a_line_that_is_not_a_pair_is_named(path):
    path.write_text('{"verdict": "reached", "k": 1}\nno pair\n')
    with pytest.raises(UserError, match="line 2 of pairs.jsonl is not a pair"):
        PairIndex(path)


def test_an_index_is_old_once_the_file_has_changed(path):
    index = PairIndex(path)
    assert not index.is_old()
    path.write_text("")
    assert index.is_old()


def test_a_file_that_changed_while_it_was_read_is_said(path):
    index = PairIndex(path)
    path.write_text("x" * 10_000)
    with pytest.raises(UserError, match="changed while it was read"):
        index.page(0, 2, 1)
