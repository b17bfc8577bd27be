"""Packing loses and adds no token."""

import pytest

from llmctl.models.tiny import tiny_tokenizer
from llmctl.training.data.encoding import encode_row
from llmctl.training.data.packing import pack_rows

from ..helpers import chat


@pytest.mark.parametrize(
    "row", [{"text": "some words é"}, chat("add 1", "it is 1"), {"input_ids": [5, 6, 7]}]
)
def test_blocks_hold_the_tokens_of_the_rows_in_their_order(row):
    tokenizer, rows = tiny_tokenizer(), [row, {"text": "b" * 22}]
    whole = [token for each in rows for token in encode_row(tokenizer, each, "all", "row")[0]]
    blocks = [block["input_ids"] for block in pack_rows(rows, tokenizer, 8)]
    assert [token for block in blocks for token in block] == whole
    assert all(len(block) == 8 for block in blocks[:-1]) and 2 <= len(blocks[-1]) <= 8


def test_a_text_ends_with_the_end_of_sequence():
    tokenizer = tiny_tokenizer()
    ids, labels = encode_row(tokenizer, {"text": "ab"}, "all", "row")
    assert ids == labels == [*tokenizer("ab")["input_ids"], tokenizer.eos_token_id]


def test_a_last_block_of_one_token_is_dropped_since_it_predicts_nothing():
    assert [len(b["input_ids"]) for b in pack_rows([{"input_ids": [4] * 17}], tiny_tokenizer(), 8)] == [8, 8]
