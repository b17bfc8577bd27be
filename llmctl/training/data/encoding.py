"""One row becomes token ids and labels.

The tokens of the prompt are checked to be the ones that the model sees when it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token without loss, in torch and transformers alike


def encode_row(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], loss_on: str, where: str
) -> tuple[list[int], list[int]]:
    """Token ids and labels of one row; see `llmctl.training.data.prepare`.

    Raises:
        UserError: The chat template does not fit the row, or the row has no response that could carry loss.
    """
    if "messages" in row:
        if any(not isinstance(message["content"], str) for message in row["messages"]):
            raise UserError(
                f"{where} holds parts, such as an image, but the model reads only text: give a "
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
    """Start and end of the responses that carry loss, in characters of the text."""
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
    """Ids of a text, and the number of ids before each cut (a position in characters, ascending)."""
    ids = _ids(tokenizer, text)
    heads = [ids if cut == len(text) else _ids(tokenizer, text[:cut]) for cut in cuts]
    if all(ids[: len(head)] == head for head in heads):
        return ids, [len(head) for head in heads]
    # A token spans a cut, for example when a response begins with a newline. When the model answers, it sees
    # the prompt's own tokens, so the pieces are tokenized separately; that must not change the text.
    edges = [0, *cuts, len(text)]
    pieces = [_ids(tokenizer, text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    apart = [token for piece in pieces for token in piece]
    if tokenizer.decode(apart) != tokenizer.decode(ids):
        raise UserError(
            f"the prompt of {where} does not end at a token's edge, and its tokenizer cannot cut there: end "
            "the chat template's generation prompt with a special token or a line break"
        )
    marks = [sum(len(piece) for piece in pieces[: number + 1]) for number in range(len(cuts))]
    return apart, marks


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template writes the special tokens itself.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
