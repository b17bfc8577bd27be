"""Conversations with pictures: their parts, what a processor makes of them, and batches of that.

Sampling and training read prompts through here, so a model is trained on the tokens that it will see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llmctl.errors import UserError

# Which tokens belong to a picture; some models need this for positions or masks, beside the ids.
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")


def render_with_pictures(processor: Any, messages: Sequence[Any]) -> str:
    """The text of a conversation up to where the reply begins, each picture as one mark.

    Raises:
        UserError: There is no chat template, or it refuses the conversation.
    """
    try:
        return str(processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the model's own and may raise anything
        raise UserError(
            f"the chat template refuses the conversation ({error}): check roles and their order, or put a "
            "chat_template.jinja into the model's folder"
        ) from error


def image_token_of(processor: Any) -> str:
    """The mark that stands for a picture in a prompt's text."""
    return str(getattr(processor, "image_token", None) or "<image>")


def encode(processor: Any, text: str, pictures: Sequence[Any]) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Token ids, marks of pictures repeated as the model needs them, and the tensors of the pictures.

    Tensors of `PER_TOKEN` are (1, T), like the ids; others have what the model asks of a picture.

    Raises:
        UserError: The processor cannot read a picture.
    """
    bos = processor.tokenizer.bos_token
    options = {"add_special_tokens": bos is not None and not text.startswith(bos), "return_tensors": "pt"}
    try:
        images = {"images": [[picture.convert("RGB") for picture in pictures]]} if pictures else {}
        found = dict(processor(text=[text], **images, **options))
    except Exception as error:  # processors raise whatever their array library does
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"the model's processor refuses a picture or its prompt ({reason})") from error
    ids = found.pop("input_ids")  # (1, T)
    found.pop("attention_mask", None)
    kept = {n: v for n, v in found.items() if n in PER_TOKEN or tuple(v.shape) != tuple(ids.shape)}
    return tuple(ids[0].tolist()), kept


def join_pictures(
    rows: Sequence[Mapping[str, Any]], device: torch.device, width: int, *, pads_left: bool = True
) -> dict[str, torch.Tensor]:
    """The pictures of several rows as one call takes them; nothing where there are none.

    Where the rows' pictures have other numbers of tiles, the fewer are filled up with zeros, which the
    models that have tiles leave out by their sizes or masks.

    Args:
        rows: The tensors of each row's pictures, by the name of the argument, as `encode` gives them.
        device: Where they are needed.
        width: Tokens of each row of the batch.
        pads_left: Whether shorter rows are padded on their left.
    """
    names = {name: None for row in rows for name in row}
    found = {}
    for name in names:
        if name in PER_TOKEN:
            found[name] = _join_per_token([row.get(name) for row in rows], width, pads_left).to(device)
            continue
        parts = [row[name] for row in rows if name in row]
        if parts[0].dim() > 2:
            tiles = max(part.shape[1] for part in parts)
            parts = [
                torch.cat([part, part.new_zeros(part.shape[0], tiles - part.shape[1], *part.shape[2:])], 1)
                for part in parts
            ]
        found[name] = torch.cat(parts).to(device)
    return found


def _join_per_token(rows: Sequence[torch.Tensor | None], width: int, pads_left: bool) -> torch.Tensor:
    """(B, width) marks, 0 where a row is padded, has no picture, or goes on with its response."""
    joined = torch.zeros(len(rows), width, dtype=torch.long)
    for place, marks in enumerate(rows):
        if marks is not None:
            start = width - marks.shape[1] if pads_left else 0
            joined[place, start : start + marks.shape[1]] = marks[0]
    return joined
