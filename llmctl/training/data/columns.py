"""Rows become the dataset that the trainer reads.

Rows are tokenized here, once, and TRL takes the ids as they are: a row that is too long is dropped and
counted, instead of being truncated in the middle of its response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.training.data.encoding import IGNORED, encode_row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """Rows as the trainer reads them."""

    dataset: Dataset  # columns input_ids, labels, weight, length
    dropped: int  # rows longer than max_length
    tokens: int  # of the rows that were kept, each counted once
    label_tokens: int  # those of them that carry loss


def prepare(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: str = "last",
    max_length: int = 1024,
) -> Prepared:
    """Tokenize rows and mark the tokens that carry loss.

    The response's end-of-turn token carries loss, as does what the template puts after it (as in TRL). A
    text ends with the end-of-sequence token, where the tokenizer has one.

    Args:
        rows: From `llmctl.training.data.rows.read_rows`.
        tokenizer: It needs a chat template if rows have messages.
        loss_on: "last" (the last response), "assistant" (every response) or "all" (every token).
        max_length: Maximum number of tokens per row; longer rows are dropped.

    Raises:
        UserError: No chat template, or one that renders a prompt differently alone and with its response;
            text or tokens where loss is on responses only; or every row is longer than `max_length`.
    """
    if not tokenizer.chat_template and any("messages" in row for row in rows):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template, but training on "
            "messages needs one: use an instruction-tuned model, or put a chat_template.jinja into its folder"
        )
    encode = partial(encode_row, tokenizer, loss_on=loss_on)
    return collect_columns(rows, lambda row, where: (*encode(row, where=where), {}), max_length)


def collect_columns(
    rows: Sequence[Mapping[str, Any]],
    encode: Callable[[Mapping[str, Any], str], tuple[list[int], list[int], Mapping[str, Any]]],
    max_length: int,
) -> Prepared:
    """Rows as columns, without those that are too long.

    Args:
        rows: From `llmctl.training.data.rows.read_rows`.
        encode: Function from a row and its name to ids, labels and further columns.
        max_length: Maximum number of tokens per row.

    Raises:
        UserError: Every row is longer than `max_length`.
    """
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "weight": [], "length": []}
    has_passes = any("pass" in row for row in rows)
    for number, row in enumerate(rows, 1):
        ids, labels, more = encode(row, f"row {number}")
        if len(ids) > max_length:
            continue
        fields = {"input_ids": ids, "labels": labels, "weight": float(row.get("weight", 1.0))}
        fields |= {"length": len(ids), **more} | ({"pass": int(row.get("pass", 0))} if has_passes else {})
        for name, value in fields.items():
            columns.setdefault(name, []).append(value)
    kept = len(columns["length"])
    if kept == 0:
        raise UserError(
            f"each of the {len(rows)} rows is longer than max_length={max_length} tokens: raise max_length, "
            "or shorten the conversations"
        )
    # The first token of a row has no prediction, so it never counts as a label.
    label_tokens = sum(label != IGNORED for labels in columns["labels"] for label in labels[1:])
    return Prepared(Dataset.from_dict(columns), len(rows) - kept, sum(columns["length"]), label_tokens)
