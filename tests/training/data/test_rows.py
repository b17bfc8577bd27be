"""Rows: read, checked and hashed."""

import json

import pytest

from llmctl.errors import UserError
from llmctl.training.data.rows import fingerprint_rows, read_rows

from ..helpers import chat

TWO_TURNS = chat("2+2?", "5", "That is wrong.", "4", weight=1.5)


def test_rows_are_read_from_jsonl(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(TWO_TURNS) + "\n\n" + json.dumps(chat("a", "b")) + "\n")
    assert read_rows(path) == [TWO_TURNS, chat("a", "b")]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(TWO_TURNS) + "\n{broken\n")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_rows(path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a"}, "row 2 is .* needs messages"),
        ({"messages": []}, "row 2 is .* needs messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "row 2 ends with a message of role 'user'"),
        ({"messages": [{"role": "assistant", "content": [{}]}]}, "row 2 holds .* content of text"),
        (chat("a", "b", weight=-1.0), "row 2 has weight -1.0"),
        (chat("a", "b", weight=float("nan")), "row 2 has weight nan"),
        (chat("a", "b", weight=float("inf")), "row 2 has weight inf"),
        (chat("a", "b") | {"weight": "2"}, "row 2 has weight '2'"),
    ],
)
def test_a_malformed_row_is_named_with_what_it_needs(row, problem):
    with pytest.raises(UserError, match=problem):
        read_rows([TWO_TURNS, row])


def test_no_rows_are_an_error():
    with pytest.raises(UserError, match="no rows to train on"):
        read_rows([])


def test_the_fingerprint_changes_with_a_weight_and_with_the_order():
    one, other = chat("a", "b"), chat("c", "d")
    marks = {fingerprint_rows(rows) for rows in ([one, other], [other, one], [one, other | {"weight": 2.0}])}
    assert len(marks) == 3
