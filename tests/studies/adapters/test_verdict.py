"""Sentences follow the intervals, whichever way they lie."""

import pytest

from llmctl.runs import Estimate
from llmctl.studies.adapters.verdict import _difference, direction


def found(seeds, rows):
    return {
        "first": "sparse_gin",
        "second": "lora",
        "over_seeds": Estimate(sum(seeds) / 2, *seeds, 3),
        "over_rows": Estimate(sum(rows) / 2, *rows, 24),
    }


@pytest.mark.parametrize(
    ("seeds", "rows", "way", "words"),
    [
        ((-0.2, -0.1), (-0.3, -0.1), -1, "Sparse-GIN predicts held-out rows better than LoRA"),
        ((0.1, 0.2), (0.1, 0.3), 1, "Sparse-GIN predicts held-out rows worse than LoRA"),
        ((-0.2, -0.1), (-0.3, 0.1), 0, "interval over rows does not exclude zero, so this decides nothing"),
        ((-0.2, 0.1), (-0.3, -0.1), 0, "interval over seeds does not exclude zero, so this decides nothing"),
        ((-0.2, 0.1), (-0.3, 0.1), 0, "no difference is shown between Sparse-GIN and LoRA"),
    ],
)
def test_a_difference_counts_where_seeds_and_rows_agree(seeds, rows, way, words):
    assert direction(found(seeds, rows)) == way
    assert words in _difference(found(seeds, rows))


def test_with_one_seed_nothing_is_decided():
    one = found((-0.2, -0.1), (-0.3, -0.1)) | {"over_seeds": Estimate(-0.15, None, None, 1)}
    assert direction(one) == 0 and "One seed has no interval, so this decides nothing" in _difference(one)
