"""The demo data set on disk: its files, and the ground truth about its items and users.

interactions.csv, items.csv    the files that `data.format: files` reads; titles name the category and no more
pictures/*.png                 named after their items
bounds.parquet                 scores with knowledge of the ground truth, for the upper bounds in reports
attributes.csv, users.jsonl    the ground truth: what each picture shows, and how each user's taste changed
demo.json                      settings and counts; written last, so it marks the folder as complete
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from llmctl.demo.attributes import Look
from llmctl.demo.users import DemoUser
from llmctl.errors import UserError
from llmctl.msr.evaluation.bounds import FILE as BOUNDS
from llmctl.runs.files import disk_errors_as_user_errors

DEMO, ITEMS, INTERACTIONS = "demo.json", "items.csv", "interactions.csv"
ATTRIBUTES, USERS, PICTURES = "attributes.csv", "users.jsonl", "pictures"
FILES = {ITEMS, INTERACTIONS, BOUNDS, ATTRIBUTES, USERS, PICTURES}  # beside demo.json


@dataclass(frozen=True)
class DemoData:
    """A demo data set on disk, with its ground truth."""

    folder: Path
    looks: dict[str, Look]  # by item
    users: dict[str, DemoUser]  # by id

    @property
    def interactions(self) -> Path:
        """The file for `data.interactions`."""
        return self.folder / INTERACTIONS

    @property
    def items(self) -> Path:
        """The file for `data.items`."""
        return self.folder / ITEMS

    @property
    def bounds(self) -> Path:
        """The file of upper bounds."""
        return self.folder / BOUNDS


def open_demo(folder: Path) -> DemoData:
    """The ground truth of a data set that `make_demo` wrote.

    Raises:
        UserError: The folder holds no demo data, or only a part of it.
    """
    if not (folder / DEMO).is_file():
        raise UserError(f"{folder} holds no demo data: make some with `llmctl msr demo {folder}`")
    with disk_errors_as_user_errors(f"read the demo data in {folder}"):
        rows = csv.DictReader((folder / ATTRIBUTES).read_text(encoding="utf-8").splitlines())
        looks = {row["item"]: Look(row["category"], row["colour"], row["pattern"]) for row in rows}
        lines = (folder / USERS).read_text(encoding="utf-8").splitlines()
    users = [DemoUser.from_dict(json.loads(line)) for line in lines]
    return DemoData(folder, looks, {user.user: user for user in users})
