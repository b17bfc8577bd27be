"""What a run knows of one user: the blocks of the history, each with the summary that came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.msr.data.stored import run_recipe
from llmctl.msr.recommender.examples import CaseReader
from llmctl.runs import Table, read_journal


def user_blocks(folder: Path, journal: str, user: str) -> list[dict[str, Any]]:
    """The records of a user in a journal of summaries, in the order of the blocks.

    Args:
        folder: Of the run.
        journal: As `MsrRecipe.summaries_of` names it.
        user: Whose.
    """
    path = folder / "journal" / f"{journal}.jsonl"
    return [record for record in read_journal(path) if record["user"] == user]


def show_user(folder: Path, user: str, arm: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The blocks of a user by arm; arms with the same summaries are shown once.

    Args:
        folder: Of a run.
        user: Whose.
        arm: One of its arms; None for all.

    Raises:
        UserError: It is no run, has no such arm or no summaries, or no such user.
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
    is_there = [(folder / f"journal/{journal}.jsonl").is_file() for journal in journals]
    if not any(is_there):
        raise UserError(
            f"{folder} has no summaries of users{f' for arm {arm}' if arm else ''}: run `llmctl msr "
            "summarize-users` first, or name an arm whose mode is not none"
        )
    for journal, name in reversed(journals.items()):
        if blocks := user_blocks(folder, journal, user):
            found[name] = blocks
    if not found:
        raise UserError(f"user {user!r} has no summary in {folder}: give a training or test user of the run")
    return found


def blocks_table(
    blocks: list[dict[str, Any]], folder: Path, arm: str, caption: str, text_chars: int = 60
) -> Table:
    """Blocks, one a row: items as the arm reads them, what is said of a picture cut short.

    Args:
        blocks: Of a user.
        folder: Of the run.
        arm: Whose summaries these are.
        caption: Of the table.
        text_chars: Of what is said of an item's picture at most.

    Raises:
        UserError: The run's data can not be read.
    """
    reader = CaseReader.open(folder)
    wording = replace(reader.wording(reader.recipe.arm(arm)), text_chars=text_chars)
    rows = [
        [
            block["block"] + 1,
            "\n".join(wording.line(item) for item in block["items"]),
            block["summary"],
            block.get("problem") or (f"{block['dropped']} items left out" if "dropped" in block else None),
        ]
        for block in blocks
    ]
    return Table(["block", "chosen", "summary", "problem"], rows, caption)
