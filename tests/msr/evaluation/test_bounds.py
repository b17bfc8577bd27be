"""The file of upper bounds that any data set may ship."""

import numpy as np
import pytest

from llmctl.errors import UserError
from llmctl.msr.evaluation.bounds import FILE, bounds_of_run, read_bounds, write_bounds
from llmctl.msr.types import CandidateList

LISTS = [CandidateList("u", ("a", "b", "c"), (0, 1, 0)), CandidateList("v", ("c", "a", "b"), (1, 0, 0))]
ROWS = [(user, item, (ord(item), float(user == "v"))) for user in "uvw" for item in "abcd"]


def test_scores_are_read_for_the_lists_in_their_order(tmp_path):
    write_bounds(tmp_path / FILE, ["letters", "user v"], ROWS)
    found = read_bounds(tmp_path / FILE, LISTS)
    assert found["letters"].tolist() == [[97, 98, 99], [99, 97, 98]]
    assert found["user v"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_table_has_a_row_per_bound_on_the_runs_lists(tmp_path):
    write_bounds(tmp_path / FILE, ["letters", "user v"], ROWS)
    table = bounds_of_run(tmp_path / "interactions.csv", LISTS)
    assert [row[0] for row in table.rows] == ["letters", "user v"]
    # the true item beats 1 of 2 for user u and 2 of 2 for user v; ties are one half
    assert table.rows[0][1].startswith("0.750") and table.rows[1][1].startswith("0.500")
    assert "2 users, 2 negatives each" in table.caption


def test_without_a_file_there_is_no_table(tmp_path):
    assert bounds_of_run(tmp_path / "interactions.csv", LISTS) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [(ROWS[:2], "no score 'letters' of item 'c' for user 'u'"), (None, "no readable Parquet")],
)
def test_bounds_that_do_not_fit_are_left_out_with_a_warning(tmp_path, caplog, rows, message):
    if rows is None:
        (tmp_path / FILE).write_text("torn")
    else:
        write_bounds(tmp_path / FILE, ["letters", "user v"], rows)
    assert bounds_of_run(tmp_path / "interactions.csv", LISTS) is None
    assert message in caplog.text
    with pytest.raises(UserError, match=message):
        read_bounds(tmp_path / FILE, LISTS)


def test_a_score_that_is_no_number_is_refused(tmp_path):
    rows = [(user, item, (np.nan, 0.0)) for user, item, _ in ROWS]
    write_bounds(tmp_path / FILE, ["letters", "user v"], rows)
    with pytest.raises(UserError, match="has no score 'letters'"):
        read_bounds(tmp_path / FILE, LISTS)
