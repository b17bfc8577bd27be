"""Rows for vision-language models: prompts go through the model's processor, images are read per batch.

A row holds the paths of its images, so that memory does not grow with them: the collator reads and processes
the images of one batch. Only the response carries loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llmctl.errors import UserError
from llmctl.models.image_text import encode, image_token_of, join_pictures, render_with_pictures
from llmctl.models.picture_parts import split_pictures
from llmctl.pictures import read_picture
from llmctl.training.data.columns import Prepared, collect_columns
from llmctl.training.data.encoding import IGNORED

IMAGES, PROMPT = "pictures", "prompt_text"  # further columns of the dataset


def prepare_for_processor(
    rows: Sequence[Mapping[str, Any]], processor: Any, *, loss_on: str = "last", max_length: int = 1024
) -> Prepared:
    """Tokenize rows for a model that reads images.

    Args:
        rows: From `rows.read_rows`; each with messages.
        processor: The processor of the model.
        loss_on: Only "last" is possible.
        max_length: Maximum number of tokens per row, including those of its images; longer rows are dropped.

    Raises:
        UserError: Loss on other tokens, a row without messages, an image that cannot be read, or a
            chat template that does not fit.
    """
    if loss_on != "last":
        raise UserError(
            f"loss_on is {loss_on} and the model reads images, but rows with images carry loss only on "
            "the last response: set loss_on=last"
        )
    return collect_columns(rows, lambda row, where: _encode_row(row, where, processor), max_length)


def _encode_row(
    row: Mapping[str, Any], where: str, processor: Any
) -> tuple[list[int], list[int], dict[str, Any]]:
    if "messages" not in row:
        raise UserError(f"{where} has no messages, but a vision-language model is trained on messages")
    *before, reply = row["messages"]
    files = [_named(part) for m in before if not isinstance(m["content"], str) for part in m["content"]]
    images_of_row = [file for file in files if file is not None]
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
    columns = {IMAGES: images_of_row, PROMPT: prompt}
    return [*ids, *response], [IGNORED] * len(ids) + list(response), columns


def _named(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """The file and size of an image; None for text."""
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
            f"{where} needs the image {file['path']}, which cannot be read ({found.problem}): replace "
            "it, or leave the row out"
        )
    return found.image


class ImageCollator:
    """Pads a batch of rows and adds the tensors of their images.

    Args:
        processor: The processor of the model, whose tokenizer has a padding token.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples from `prepare_for_processor`."""
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
        if not example[IMAGES]:
            return {}
        images = [_read(file, "a row") for file in example[IMAGES]]
        return encode(self._processor, example[PROMPT], images)[1]


def language_targets(model: Any, targets: str | Sequence[str]) -> str:
    """A pattern for the layers of the language model that get an adapter, never those of the vision encoder.

    Args:
        model: A vision-language model.
        targets: "all-linear", a pattern for names below the language model, or name suffixes.

    Returns:
        A regular expression for PEFT, which matches it against whole names.
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
