"""Tables on prepared data, for commands and reports."""

from __future__ import annotations

from llmctl.msr.data.prepared import PreparedData
from llmctl.runs import Table


def filter_table(prepared: PreparedData) -> Table:
    """Counts after every filter; the first row is what was read."""
    rows = [
        [step.name, step.interactions, step.users, step.items, step.found] for step in prepared.summary.steps
    ]
    return Table(["filter", "interactions", "users", "items", "found"], rows, "What each filter left.")


def split_table(prepared: PreparedData) -> Table:
    """Users and interactions of every split."""
    s = prepared.summary
    rows = [[name, users, s.interactions[name]] for name, users in s.users.items()]
    caption = (
        f"{s.items:,} items: {s.untitled:,} with an empty title, {s.without_text:,} without text, "
        f"{s.without_image:,} without an image."
    )
    return Table(["split", "users", "interactions"], rows, caption)


def chance_table(prepared: PreparedData) -> Table:
    """Every metric of a random ranking."""
    rows = [[name, round(value, 4)] for name, value in prepared.summary.chance.items()]
    caption = f"Candidate lists of 1 true next item and {prepared.summary.negatives} negatives per user."
    return Table(["metric", "by chance"], rows, caption)
