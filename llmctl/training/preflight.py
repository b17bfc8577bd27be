"""Checks of a fine-tuning before its folder is made, and its rows as files in the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import check_adapter
from llmctl.runs import Run
from llmctl.training.adapters import ADAPTERS
from llmctl.training.data.sources import Rows, get_rows
from llmctl.training.recipe import Architecture, SftRecipe


def check_sft(recipe: SftRecipe) -> Rows:
    """Check model, adapter, data and configuration, and return the rows.

    A mistake is found here, before the folder of the run is made.

    Raises:
        UserError: Model, adapter, data or configuration is missing or does not fit.
    """
    check_model(recipe.model, recipe.architecture)
    adapter = ADAPTERS[recipe.train.adapter]
    adapter.check_start(recipe.adapter)
    adapter.options(recipe.train)
    check_adapter(recipe.adapter)
    if recipe.launch is not None and not recipe.launch.is_file():
        raise UserError(
            f"launch is {recipe.launch}, but there is no such file: give an accelerate configuration"
        )
    rows = get_rows(recipe.data)
    check_text([*rows.training, *rows.validation], recipe.train.loss_on)
    return rows


def check_model(model: str, architecture: Architecture | None) -> None:
    """Refuse a missing model. For training from scratch, the architecture and its tokenizer are checked.

    Raises:
        UserError: The model is not found, or the architecture is not valid.
    """
    if architecture is None:
        resolve(model)
        return
    from llmctl.training.scratch import build_config, load_scratch_tokenizer

    build_config(architecture, load_scratch_tokenizer(architecture, model))


def check_text(rows: Sequence[Mapping[str, Any]], loss_on: str) -> None:
    """Refuse plain text if only responses carry loss.

    Raises:
        UserError: A row has no messages, and loss is not on all tokens.
    """
    if loss_on != "all" and any("messages" not in row for row in rows):
        raise UserError(
            f"the rows are plain text, which has no responses, but train.loss_on is {loss_on}: "
            "set train.loss_on=all"
        )


def write_rows(run: Run, rows: Rows, tokenizer: Any, block: int | None) -> tuple[Path, Path | None]:
    """Write the rows to files in the run, packed if `block` is given.

    Returns:
        The JSONL files of training rows and of validation rows; None without validation rows.
    """
    paths: list[Path | None] = []
    for name, part in (("train", rows.training), ("validation", rows.validation)):
        if block is not None and part:
            from llmctl.training.data.packing import pack_rows

            part = list(pack_rows(part, tokenizer, block))
        lines = "".join(json.dumps(dict(row)) + "\n" for row in part)
        paths.append(run.write_text(f"data/{name}.jsonl", lines) if part else None)
    if paths[0] is None:
        raise UserError("the training rows hold fewer than 2 tokens: give more text")
    return paths[0], paths[1]
