"""Show how a user's summary changed with the history, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.msr.data.prepared import run_recipe
from llmctl.msr.recommender.examples import CaseReader
from llmctl.msr.summaries.users import UserBlock
from llmctl.runs import Table, read_journal


def user_blocks(folder: Path, journal: str, user: str) -> list[UserBlock]:
    """The blocks of a user in a journal of summaries, in order.

    Args:
        folder: The folder of the run.
        journal: Its name, as `MsrRecipe.summaries_of` gives it.
        user: Which user.
    """
    path = folder / "journal" / f"{journal}.jsonl"
    return [UserBlock.from_record(record) for record in read_journal(path) if record["user"] == user]


def show_user(folder: Path, user: str, arm: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The journal records of a user by arm; arms that share their summaries are shown once.

    Args:
        folder: The folder of a run.
        user: Which user.
        arm: The name of one of the run's arms; None for all.

    Raises:
        UserError: The folder is no run, or it has no such arm, no summaries, or no such user.
    """
    recipe = run_recipe(folder)
    names = [one.name for one in recipe.resolved_arms]
    if arm is not None and arm not in names:
        raise UserError(f"--arm is {arm!r}, but the arms of the run are {', '.join(names)}")
    found: dict[str, list[dict[str, Any]]] = {}
    journals = {
        recipe.summaries_of(one): one.name
        for one in reversed(recipe.resolved_arms)
        if arm in (None, one.name) and one.users.mode != "none"
    }
    paths = {folder / f"journal/{journal}.jsonl": name for journal, name in reversed(journals.items())}
    if not any(path.is_file() for path in paths):
        raise UserError(
            f"{folder} has no summaries of users{f' for arm {arm}' if arm else ''}: run `llmctl msr "
            "summarize-users` first, or name an arm whose mode is not none"
        )
    for path, name in paths.items():
        if records := [record for record in read_journal(path) if record["user"] == user]:
            found[name] = records
    if not found:
        raise UserError(f"user {user!r} has no summary in {folder}: give a training or test user of the run")
    return found


def blocks_table(
    records: Sequence[dict[str, Any]], folder: Path, arm: str, caption: str, text_chars: int = 60
) -> Table:
    """One row per block: its items as the arm's prompts show them, with shortened descriptions.

    Args:
        records: The journal records of a user.
        folder: The folder of the run.
        arm: The name of the arm that reads these summaries.
        caption: Caption of the table.
        text_chars: Most characters of an item's description.

    Raises:
        UserError: The run's data cannot be read.
    """
    reader = CaseReader.open(folder)
    wording = replace(reader.wording(reader.recipe.arm(arm)), text_chars=text_chars)
    rows = [
        [
            block.block + 1,
            "\n".join(wording.line(item) for item in block.items),
            block.summary,
            block.problem or (f"{block.dropped} items left out" if block.dropped else None),
        ]
        for block in (UserBlock.from_record(record) for record in records)
    ]
    return Table(["block", "chosen", "summary", "problem"], rows, caption)
