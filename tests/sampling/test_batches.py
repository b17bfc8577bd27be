"""How rows are put together: by length for sampling, by common beginning for scoring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.sampling.batches import MIN_SHARED, Row, by_length, by_prefix, common_length, find_groups

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple), max_size=30).map(
    lambda rows: [Row(number, ids) for number, ids in enumerate(rows)]
)


def rows_of(*texts):
    return [Row(number, tuple(text.encode())) for number, text in enumerate(texts)]


@given(ROWS, st.integers(1, 8), st.integers(10, 200))
def test_every_row_is_in_one_batch_and_batches_keep_their_limits(rows, max_rows, max_tokens):
    grouped = by_prefix(rows, max_rows, max_tokens)
    plain = by_length(rows, 1, 0, max_rows, max_tokens)
    for batches in ([[r for g in batch for r in g.rows] for batch in grouped], plain):
        assert sorted(r.number for batch in batches for r in batch) == list(range(len(rows)))
        for batch in batches:
            width = max(len(r.ids) for r in batch)
            assert len(batch) <= max_rows
            assert (
                len(batch) * width <= max_tokens
                or len(batch) == 1
                or batch in [[r for r in g.rows] for b in grouped for g in b]
            )
    for group in (g for batch in grouped for g in batch):
        assert len({row.ids[: group.shared] for row in group.rows}) == 1
        assert all(len(row.ids) > group.shared for row in group.rows)
        assert group.shared == 0 or (len(group.rows) > 1 and group.shared >= MIN_SHARED)


def test_users_with_a_common_instruction_are_groups_of_their_own():
    instruction, ann, bob = "do this: ", "ann likes red and green things ", "bob likes blue things only "
    rows = rows_of(*(instruction + user + item for item in ("cup?", "hat?", "car?") for user in (ann, bob)))
    groups = list(find_groups(rows, 64))
    assert [[r.number for r in g.rows] for g in groups] == [[4, 0, 2], [5, 1, 3]]
    assert [g.shared for g in groups] == [len(instruction + ann), len(instruction + bob)]


def test_a_prefix_ends_before_a_picture():
    rows = [Row(n, (*range(40), n), pictures={"x": n}, text_only=12) for n in range(3)]
    assert [g.shared for g in find_groups(rows, 64)] == [12]


def test_rows_with_and_without_pictures_do_not_share_a_batch():
    rows = [Row(0, (1,) * 20), Row(1, (1,) * 20, pictures={"x": 1}, text_only=9), Row(2, (1,) * 20)]
    for batches in (
        by_length(rows, 1, 0, 8, 999),
        [[r for g in b for r in g.rows] for b in by_prefix(rows, 8, 999)],
    ):
        assert sorted(sorted(r.number for r in batch) for batch in batches) == [[0, 2], [1]]


@pytest.mark.parametrize(("a", "b", "length"), [("", "x", 0), ("abc", "abd", 2), ("ab", "abc", 2)])
def test_common_length_counts_from_the_beginning(a, b, length):
    assert common_length(a, b) == length
