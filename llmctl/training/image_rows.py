"""Rows for vision-language models: prompts through the model's processor, pictures read when they are due.

A row keeps the paths of its pictures, so that memory does not grow with them: the collator reads and
processes those of a batch. Labels are the response's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llmctl.errors import UserError
from llmctl.models.image_text import encode, image_token_of, join_pictures, render_with_pictures
from llmctl.models.picture_parts import split_pictures
from llmctl.pictures import read_picture
from llmctl.training.data import IGNORED, Prepared, collect_columns

PICTURES, PROMPT = "pictures", "prompt_text"  # columns beside those of text


def prepare_for_processor(
    rows: Sequence[Mapping[str, Any]], processor: Any, *, loss_on: str = "last", max_length: int = 1024
) -> Prepared:
    """Rows as the trainer reads them, for a model that reads pictures.

    Args:
        rows: As `data.read_rows` gives them; with messages.
        processor: Of the model.
        loss_on: Only "last" can be had.
        max_length: Tokens of a row at most, those of its pictures counted; longer ones are dropped.

    Raises:
        UserError: Loss on other tokens, a row without messages, a picture that can not be read, or a
            template that does not fit.
    """
    if loss_on != "last":
        raise UserError(
            f"loss_on is {loss_on} and the model reads pictures, but their rows carry loss on the last "
            "response alone: set loss_on=last"
        )
    return collect_columns(rows, lambda row, where: _encode_row(row, where, processor), max_length)


def _encode_row(
    row: Mapping[str, Any], where: str, processor: Any
) -> tuple[list[int], list[int], dict[str, Any]]:
    if "messages" not in row:
        raise UserError(f"{where} has no messages, but a vision-language model is trained on messages")
    *before, reply = row["messages"]
    files = [_named(part) for m in before if not isinstance(m["content"], str) for part in m["content"]]
    pictures = [file for file in files if file is not None]
    opened = [{**m, "content": _open(m["content"], where)} for m in before]
    messages, images = split_pictures(opened, image_token_of(processor))
    prompt = render_with_pictures(processor, messages)
    said = {**reply, "content": [{"type": "text", "text": reply["content"]}]}
    whole = str(processor.apply_chat_template([*messages, said], tokenize=False))
    if not whole.startswith(prompt):
        raise UserError(
            f"the chat template renders the prompt of {where} differently alone and with its response: use a "
            "template that only appends"
        )
    ids, _ = encode(processor, prompt, images)
    response = processor.tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    columns = {PICTURES: pictures, PROMPT: prompt}
    return [*ids, *response], [IGNORED] * len(ids) + list(response), columns


def _named(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A picture's file and size, None for text."""
    if part["type"] != "image":
        return None
    return {"path": part["path"], "max_side": int(part.get("max_side", 672))}


def _open(content: Any, where: str) -> Any:
    if isinstance(content, str):
        return content
    return [
        part if (file := _named(part)) is None else {"type": "image", "image": _read(file, where)}
        for part in content
    ]


def _read(file: Mapping[str, Any], where: str) -> Any:
    found = read_picture(file["path"], max_side=file["max_side"])
    if found.image is None:
        raise UserError(
            f"{where} needs the picture {file['path']}, which can not be read ({found.problem}): mend it, or "
            "leave the row out"
        )
    return found.image


class ImageCollator:
    """Pads a batch of rows, and adds the tensors of their pictures.

    Args:
        processor: Of the model; its tokenizer has a padding token.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples as `prepare_for_processor` makes them."""
        width = max(len(example["input_ids"]) for example in examples)
        pad = self._processor.tokenizer.pad_token_id

        def padded(name: str, filling: int) -> torch.Tensor:
            return torch.tensor([[*e[name], *[filling] * (width - len(e[name]))] for e in examples])

        mask = [[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples]
        batch: dict[str, Any] = {
            "input_ids": padded("input_ids", pad),
            "attention_mask": torch.tensor(mask),
            "labels": padded("labels", IGNORED),
        }
        tensors = [self._tensors(example) for example in examples]
        return batch | join_pictures(tensors, torch.device("cpu"), width, pads_left=False)

    def _tensors(self, example: Mapping[str, Any]) -> dict[str, Any]:
        if not example[PICTURES]:
            return {}
        images = [_read(file, "a row") for file in example[PICTURES]]
        return encode(self._processor, example[PROMPT], images)[1]


def language_targets(model: Any, targets: str | Sequence[str]) -> str:
    """A pattern of the layers of the language part that an adapter is put on, never of the vision part.

    Args:
        model: A vision-language model.
        targets: "all-linear", a pattern that is matched from the language part on, or name suffixes.

    Returns:
        A regular expression for PEFT, which matches whole names.
    """
    part = model.get_decoder()
    place = next(name for name, module in model.named_modules() if module is part)
    if targets == "all-linear":
        kinds = torch.nn.Linear
        targets = sorted({n.rsplit(".", 1)[-1] for n, m in part.named_modules() if isinstance(m, kinds)})
    if isinstance(targets, str):
        return rf"{_literal(place)}\.(?:{targets})"
    return rf"{_literal(place)}\.(?:.*\.)?(?:{'|'.join(map(_literal, targets))})"


def _literal(name: str) -> str:
    return name.replace(".", r"\.")
