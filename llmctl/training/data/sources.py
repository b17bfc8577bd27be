"""Training and validation rows from files, the Hub or tasks; no row is in both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from llmctl.errors import UserError
from llmctl.training.data.rows import read_rows
from llmctl.training.recipe import TaskData, TrainDataSettings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """The rows that a recipe's data gives."""

    training: list[Row]
    validation: list[Row]
    repeats: int  # training rows that were left out because a validation row has the same content
    problems: list[Any]  # the task's problems behind the validation rows; empty without a task


def get_rows(data: TrainDataSettings) -> Rows:
    """Read the rows of a recipe, split by its seed.

    Rows are taken in an order that the seed fixes, the validation rows first. So the validation rows stay the
    same when there are more training rows.

    Raises:
        UserError: There are no rows, a row is malformed, or there are too few rows to hold any out.
    """
    wanted = None if data.rows is None else data.rows + (0 if data.is_apart else data.validation_rows)
    stream = list(islice(_stream(data, apart=False), wanted))
    held = data.validation_rows
    if data.is_apart:
        apart = list(islice(_stream(data, apart=True), held))
        if held and not apart:
            raise UserError("the source of validation rows has none: check its path and split")
    else:
        apart, stream = stream[:held], stream[held:]
        if not stream:
            raise UserError(
                f"there are {len(apart)} rows and data.validation_rows is {held}, which leaves none to train "
                "on: lower data.validation_rows, or give more rows"
            )
    seen = {_content(row) for row, _ in apart}
    kept = [row for row, _ in stream if _content(row) not in seen]
    if not kept:
        raise UserError("every training row repeats a validation row: give other data")
    return Rows(
        read_rows(kept),
        read_rows([row for row, _ in apart]) if apart else [],
        len(stream) - len(kept),
        [problem for _, problem in apart if problem is not None],
    )


def _content(row: Row) -> str:
    return json.dumps({key: value for key, value in row.items() if key != "weight"}, sort_keys=True)


def _stream(data: TrainDataSettings, apart: bool) -> Iterator[tuple[Row, Any]]:
    """(row, problem or None) of one source, in the order of the seed."""
    if data.task is not None:
        yield from _task_rows(data.task, data.seed, apart)
        return
    path = data.validation_path if apart and data.validation_path is not None else data.path
    split = data.validation_split if apart and data.validation_split is not None else data.split
    for place, fields in _fields(str(path), data.config, split, data.seed):
        text = fields.get(data.text_field)
        if not (isinstance(text, str) and not text.strip()):  # data sets on the Hub contain blank lines
            yield to_row(fields, place, data.text_field), None


def _task_rows(task: TaskData, seed: int, apart: bool) -> Iterator[tuple[Row, Any]]:
    from llmctl.tasks import get_task

    path = task.validation_path if apart and task.validation_path is not None else task.path
    split = task.validation_split if apart and task.validation_split is not None else task.split
    found = get_task(task.name, **({} if path is None else {"path": path}), **task.options)
    # Seed 0 would keep the stored order, which can be sorted in some way.
    for problem in found.problems(split, seed=seed + 1):
        if problem.solution is None:
            raise UserError(
                f"problem {problem.id} of task {task.name} has no reference solution to learn: "
                "choose a task that has them, or give data.path"
            )
        reply = {"role": "assistant", "content": problem.solution}
        yield {"messages": [*found.conversation(problem), reply]}, problem


def _fields(path: str, config: str | None, split: str, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place for messages, fields) of every row, in the order of the seed."""
    from llmctl.tasks.rows import FileSource, HubSource

    file = Path(path).expanduser()
    if file.suffix == ".txt":
        yield from _paragraphs(file, seed)
        return
    looks_local = file.exists() or file.suffix or path.count("/") != 1 or path.startswith((".", "~", "/"))
    source = FileSource(file) if looks_local else HubSource(path, (config,), (split,), path)
    for row in source.rows(split, seed + 1):
        yield row.place, row.fields


def _paragraphs(file: Path, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Paragraphs of a text file, separated by blank lines."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as UTF-8 text ({error}): give another data.path") from error
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    Random(seed).shuffle(parts)
    for number, part in enumerate(parts, 1):
        yield f"{file}, paragraph {number}", {"text": part}


def to_row(fields: Mapping[str, Any], place: str, text_field: str = "text") -> Row:
    """A training row from a row of a data set: messages, prompt and completion, or text.

    Raises:
        UserError: The row has none of these fields.
    """
    extra = {"weight": fields["weight"]} if "weight" in fields else {}
    if "messages" in fields:
        return {"messages": fields["messages"], **extra}
    if "prompt" in fields and "completion" in fields:
        prompt = _as_messages(fields["prompt"], "user")
        return {"messages": [*prompt, *_as_messages(fields["completion"], "assistant")], **extra}
    text = fields.get(text_field)
    if not isinstance(text, str):
        raise UserError(
            f"{place} has {', '.join(map(repr, fields)) or 'no fields'}, but messages, or prompt and "
            f"completion, or text in {text_field!r} is needed: set data.text_field to the text's field"
        )
    return {"text": text, **extra}


def _as_messages(part: Any, role: str) -> list[Any]:
    """A prompt or completion, which is text or a list of messages."""
    return [{"role": role, "content": part}] if isinstance(part, str) else list(part)
