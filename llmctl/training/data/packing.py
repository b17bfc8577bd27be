"""Packing: rows of any length become blocks of T tokens, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmctl.training.data.encoding import encode_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pack_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, block: int
) -> list[dict[str, list[int]]]:
    """Concatenate rows and split them into blocks of `block` tokens; the last block may be shorter.

    Tokens see the rows before theirs in a block, as in the pretraining of most models; each row ends with
    the end-of-sequence token, or as its chat template ends it.

    Args:
        rows: From `llmctl.training.data.rows.read_rows`.
        tokenizer: It needs a chat template if rows have messages.
        block: Number of tokens per block, T.

    Returns:
        Rows of `input_ids`.
    """
    ids = [
        token for n, row in enumerate(rows, 1) for token in encode_row(tokenizer, row, "all", f"row {n}")[0]
    ]
    blocks = [ids[start : start + block] for start in range(0, len(ids), block)]
    return [{"input_ids": part} for part in blocks if len(part) > 1]  # a single token predicts nothing
