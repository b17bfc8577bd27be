"""Rows of messages, text or tokens become token ids and labels.

A row is `{"messages": [...], "weight": 1.0}`; its last message is the response to learn. Where loss is on
every token, it may be `{"text": "..."}` or `{"input_ids": [...]}` as well. Rows are tokenized here, once,
and TRL takes the ids as they are: a row that is too long is dropped and counted instead of being cut
through its response, and the tokens of the prompt are checked to be the ones that the model sees when it
answers.

A message of a row for a vision-language model may hold pictures: its content is a list of parts
`{"type": "text", "text": "..."}` and `{"type": "image", "path": "...", "max_side": 672}`. A row may say which
pass over the data it belongs to, `"pass": 2`: all rows of a pass come before those of the next.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token without loss, in torch and transformers alike


@dataclass(frozen=True)
class Prepared:
    """Rows as the trainer reads them."""

    dataset: Dataset  # columns input_ids, labels, weight, length
    dropped: int  # rows longer than max_length
    tokens: int  # of the rows that were kept, once each
    label_tokens: int  # of these, the ones that carry loss


def read_rows(source: Sequence[Mapping[str, Any]] | str | Path) -> list[Mapping[str, Any]]:
    """Rows from a list or a JSONL file, checked one by one.

    Raises:
        UserError: No such file, no rows, or a row (named by its number, from 1) that is malformed: no
            messages (nor text, nor tokens), a last message that is not the assistant's, or a weight that is
            negative or not finite.
    """
    rows = list(_read_lines(Path(source))) if isinstance(source, (str, Path)) else list(source)
    if not rows:
        raise UserError("there are no rows to train on, but at least one is needed: check what made them")
    for number, row in enumerate(rows, 1):
        _check_row(row, f"row {number}")
    return rows


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
        rows: As `read_rows` gives them.
        tokenizer: With a chat template, where rows have messages.
        loss_on: "last" (the last response), "assistant" (every response) or "all" (every token).
        max_length: Tokens of a row at most; longer ones are dropped.

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
    """Rows in columns, without those that are too long.

    Args:
        rows: As `read_rows` gives them.
        encode: Gives the ids, the labels and further columns of a row; it is told the row's name.
        max_length: Tokens of a row at most.

    Raises:
        UserError: Every row is longer.
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


def encode_row(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], loss_on: str, where: str
) -> tuple[list[int], list[int]]:
    """Token ids and labels of one row; see `prepare`.

    Raises:
        UserError: Its template does not fit, or it has no response that could carry loss.
    """
    if "messages" in row:
        if any(not isinstance(message["content"], str) for message in row["messages"]):
            raise UserError(
                f"{where} holds parts, such as a picture, but the model reads text alone: give a "
                "vision-language model, or text"
            )
        return _encode_messages(tokenizer, row["messages"], loss_on, where)
    if loss_on != "all":
        raise UserError(
            f"{where} is plain text, which has no response, but loss_on is {loss_on}: set loss_on=all"
        )
    if "input_ids" in row:
        ids = list(row["input_ids"])
    else:
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        ids = [*tokenizer(row["text"])["input_ids"], *end]
    return ids, list(ids)


def fingerprint_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A hash of what the rows say, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=dict).encode() + b"\n")
    return digest.hexdigest()[:16]


def _read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise UserError(f"the file of rows {path} does not exist: check the path")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path} line {number} is not JSON ({error.msg}): mend or drop it"
                    ) from error


def _check_row(row: Any, where: str) -> None:
    if not (isinstance(row, Mapping) and "messages" not in row and _is_text(row)):
        _check_messages(row, where)
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise UserError(f"{where} has weight {weight!r}, but a finite number of at least 0 is needed")


def _is_text(row: Mapping[str, Any]) -> bool:
    """Whether a row is text, or tokens of it."""
    ids = row.get("input_ids")
    has_ids = isinstance(ids, Sequence) and bool(ids) and all(type(token) is int for token in ids)
    return has_ids or (isinstance(row.get("text"), str) and bool(row["text"]))


def _check_messages(row: Any, where: str) -> None:
    messages = row.get("messages") if isinstance(row, Mapping) else None
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UserError(
            f'{where} is {row!r:.80}, but it needs messages: {{"messages": [...], "weight": 1.0}}'
        )
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        is_parts = isinstance(content, list) and all(_is_part(part) for part in content)
        if not isinstance(content, str) and not is_parts:
            raise UserError(
                f"{where} holds {message!r:.80}, but a message needs a role and a content of text"
            )
    if messages[-1].get("role") != "assistant":
        raise UserError(
            f"{where} ends with a message of role {messages[-1].get('role')!r}, but the last message is the "
            "response to learn: end it with an assistant message"
        )


def _is_part(part: Any) -> bool:
    kinds = {"text": "text", "image": "path"}
    return isinstance(part, Mapping) and isinstance(part.get(kinds.get(str(part.get("type")), "")), str)


def _encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], loss_on: str, where: str
) -> tuple[list[int], list[int]]:
    text = _render(tokenizer, messages, where)
    spans = [] if loss_on == "all" else _response_spans(tokenizer, messages, text, loss_on, where)
    ids, marks = _encode(tokenizer, text, [cut for span in spans for cut in span], where)
    if loss_on == "all":
        return ids, list(ids)
    labels = [IGNORED] * len(ids)
    for start, end in zip(marks[::2], marks[1::2], strict=True):
        labels[start:end] = ids[start:end]
    return ids, labels


def _response_spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    text: str,
    loss_on: str,
    where: str,
) -> list[tuple[int, int]]:
    """Where the responses that carry loss begin and end in the text, in characters."""
    last = len(messages) - 1
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    spans = []
    for turn in turns if loss_on == "assistant" else [last]:
        prompt = _render(tokenizer, messages[:turn], where, add_generation_prompt=True)
        reply = text if turn == last else _render(tokenizer, messages[: turn + 1], where)
        if not (reply.startswith(prompt) and text.startswith(reply)):
            raise UserError(
                f"the chat template renders the prompt of message {turn + 1} of {where} differently alone "
                "and in the whole conversation, so the model would learn from a prompt that it never "
                "sees: use a template that only appends" + (", or loss_on=last" if turn != last else "")
            )
        spans.append((len(prompt), len(reply)))
    return spans


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    where: str,
    *,
    add_generation_prompt: bool = False,
) -> str:
    from jinja2 import TemplateError

    if not messages:
        return ""
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )
    except TemplateError as error:
        raise UserError(
            f"the chat template refuses {where} ({error.message}): change its messages, or use another model"
        ) from error


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, cuts: list[int], where: str
) -> tuple[list[int], list[int]]:
    """Ids of a text, and for each cut (a place in characters, ascending) the number of ids before it."""
    ids = _ids(tokenizer, text)
    heads = [ids if cut == len(text) else _ids(tokenizer, text[:cut]) for cut in cuts]
    if all(ids[: len(head)] == head for head in heads):
        return ids, [len(head) for head in heads]
    # A token reaches over a cut (a response that begins with a newline, say). The model that answers sees
    # the prompt's own tokens, so the pieces are tokenized apart; that must not change the text.
    edges = [0, *cuts, len(text)]
    pieces = [_ids(tokenizer, text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    apart = [token for piece in pieces for token in piece]
    if tokenizer.decode(apart) != tokenizer.decode(ids):
        raise UserError(
            f"the prompt of {where} does not end at a token's edge, and its tokenizer can not cut there: end "
            "the chat template's generation prompt with a special token or a line break"
        )
    marks = [sum(len(piece) for piece in pieces[: number + 1]) for number in range(len(cuts))]
    return apart, marks


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template writes the special tokens itself.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
