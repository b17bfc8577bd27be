"""A batch that does not fit in memory is halved, and the size that fits is kept."""

import pytest
import torch

from llmctl.errors import EngineError
from llmctl.sampling.batches import Row
from llmctl.sampling.halving import BatchLimit, is_out_of_memory

ROWS = [Row(number, (1, 2, 3)) for number in range(8)]


def computer(fits, error=torch.OutOfMemoryError):
    """Gives each row's number, with memory for so many rows; notes the sizes that it was asked for."""
    sizes = []

    def compute(batch):
        sizes.append(len(batch))
        if len(batch) > fits:
            raise error("can't allocate memory")
        return [row.number for row in batch]

    return compute, sizes


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_halves_give_every_answer_in_order_and_lower_the_limit(error, caplog):
    compute, sizes = computer(2, error)
    limit = BatchLimit(8, torch.device("cpu"))
    assert limit.run(ROWS, compute) == list(range(8))
    assert sizes == [8, 4, 2, 2, 4, 2, 2] and limit.rows == 2
    assert "out of memory with 8 rows: going on with 4" in caplog.text


def test_a_prompt_that_does_not_fit_alone_gets_its_own_answer_or_raises():
    compute, _ = computer(0)
    limit = BatchLimit(8, torch.device("cpu"))
    assert limit.run(ROWS[:2], compute, alone=lambda row: -row.number) == [0, -1]
    with pytest.raises(EngineError, match="one prompt of 3 tokens does not fit in memory"):
        limit.run(ROWS[:1], compute)


def test_samples_per_prompt_count_as_rows():
    compute, _ = computer(4)
    limit = BatchLimit(64, torch.device("cpu"))
    limit.run(ROWS, compute, n=5)
    assert limit.rows == 20


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    compute, sizes = computer(1, ValueError)
    with pytest.raises(ValueError, match="allocate"):
        BatchLimit(8, torch.device("cpu")).run(ROWS, compute)
    assert sizes == [8]
