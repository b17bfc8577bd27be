"""Records between the phases of a job."""

from llmctl.jobs.records import Done, ResultRow, Shard
from llmctl.jobs.results import COLUMNS

SHARD = Shard("m", "sort", "single", 3, 4, 8, "key")


def test_a_row_has_the_columns_from_problem_on():
    assert ResultRow._fields == COLUMNS[COLUMNS.index("problem") :]


def test_a_shard_names_its_group_and_its_problems():
    assert SHARD.group == ("m", "sort", "single", 3)
    assert str(SHARD) == "m/sort/single/seed 3/4-8"


def test_a_part_may_be_encoded_later():
    for data in (b"bytes", lambda: b"bytes"):
        assert Done(SHARD, data, 1, 2, 3, 0.5, "fake").encoded() == b"bytes"
