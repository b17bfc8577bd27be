"""What a fine-tuning needs from outside, looked at before its folder is made, and put into the run after."""

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
from llmctl.training.recipe import Architecture, SftRecipe
from llmctl.training.sources import Rows, get_rows


def check_sft(recipe: SftRecipe) -> Rows:
    """Find mistakes that would otherwise stop a run after its folder was made; gives its rows.

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
    """Refuse a model that is not there; from scratch its tokenizer is what matters.

    Raises:
        UserError: It can not be found, or the architecture does not fit.
    """
    if architecture is None:
        resolve(model)
        return
    from llmctl.training.scratch import build_config, load_scratch_tokenizer

    build_config(architecture, load_scratch_tokenizer(architecture, model))


def check_text(rows: Sequence[Mapping[str, Any]], loss_on: str) -> None:
    """Refuse text where loss is on responses only.

    Raises:
        UserError: In words.
    """
    if loss_on != "all" and any("messages" not in row for row in rows):
        raise UserError(
            f"the rows are plain text, which has no responses, but train.loss_on is {loss_on}: "
            "set train.loss_on=all"
        )


def write_rows(run: Run, rows: Rows, tokenizer: Any, block: int | None) -> tuple[Path, Path | None]:
    """Write the rows as they are trained on, packed where that is asked for.

    Returns:
        The JSONL files of training rows and of validation rows (None where there are none).
    """
    paths: list[Path | None] = []
    for name, part in (("train", rows.training), ("validation", rows.validation)):
        if block is not None and part:
            from llmctl.training.packing import pack_rows

            part = list(pack_rows(part, tokenizer, block))
        lines = "".join(json.dumps(dict(row)) + "\n" for row in part)
        paths.append(run.write_text(f"data/{name}.jsonl", lines) if part else None)
    if paths[0] is None:
        raise UserError("the training rows hold fewer than 2 tokens: give more text")
    return paths[0], paths[1]
