"""The demo data set: a few hundred rendered items, users with a known taste, written as a pair of files.

interactions.csv, items.csv    what `data.format: files` reads; titles tell the category and no more
pictures/*.png                 named after their items
attributes.csv, users.jsonl    the truth: what each picture shows, and how each user's taste moved
demo.json                      settings and counts; written last, so it says that all is there
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmctl.demo.attributes import CATEGORIES, COLOURS, PATTERNS, Look
from llmctl.demo.pictures import draw_picture
from llmctl.demo.users import DemoUser, UserSettings, simulate_user
from llmctl.errors import UserError
from llmctl.runs import progress
from llmctl.runs.files import disk_errors_as_user_errors, make_folder, read_json, write_bytes, write_json
from llmctl.sampling.common import derive_seed

DEMO, ITEMS, INTERACTIONS = "demo.json", "items.csv", "interactions.csv"
ATTRIBUTES, USERS, PICTURES = "attributes.csv", "users.jsonl", "pictures"
_FORMAT = 1  # goes up with every change of what a seed gives
_SYLLABLES = ("al", "bor", "cor", "del", "en", "fi", "gar", "hol", "is", "jun", "kel", "lum", "mar", "nor")
_ENDINGS = ("a", "o", "en", "is", "um", "ia", "ott", "ell")


@dataclass(frozen=True)
class DemoSettings:
    """What the data set is made of."""

    items: int = 384
    """Items, spread evenly over all combinations of category, colour and pattern."""
    users: int = 300
    """Users."""
    size: int = 224
    """Pixels of a picture's sides."""
    seed: int = 0
    """Of everything."""
    choices: UserSettings = field(default_factory=UserSettings)
    """How users choose."""

    def __post_init__(self) -> None:
        """Refuse what gives no data set.

        Raises:
            UserError: A number is too small.
        """
        for name, least in (("items", 64), ("users", 1), ("size", 16), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}, but the demo needs {least} or more")


@dataclass(frozen=True)
class DemoData:
    """A data set on disk, and the truth about it."""

    folder: Path
    looks: dict[str, Look]  # by item
    users: dict[str, DemoUser]

    @property
    def interactions(self) -> Path:
        """For `data.interactions`."""
        return self.folder / INTERACTIONS

    @property
    def items(self) -> Path:
        """For `data.items`."""
        return self.folder / ITEMS


def make_demo(folder: Path, settings: DemoSettings | None = None, *, quiet: bool = False) -> DemoData:
    """Write the demo data set, or take the one that is there.

    Args:
        folder: New, empty, or one that this made with the same settings (a stopped start is gone over again).
        settings: What it is made of.
        quiet: Show no progress.

    Raises:
        UserError: The folder holds something else or can not be written.
    """
    s = settings or DemoSettings()
    wanted = {"format": _FORMAT, "settings": json.loads(json.dumps(asdict(s)))}
    made = folder / DEMO
    if made.is_file():
        found = read_json(made)
        if {key: found.get(key) for key in wanted} != wanted:
            raise UserError(f"{folder} holds demo data with other settings: choose another folder")
        return open_demo(folder)
    _check_free(folder)
    make_folder(folder / PICTURES)
    looks = deal_looks(s)
    _draw(folder, looks, s, quiet)
    users = [simulate_user(f"u{number:04}", looks, s.seed, s.choices) for number in range(s.users)]
    _write_tables(folder, looks, users, s)
    write_json(made, wanted | _counts(looks, users))
    return open_demo(folder)


def open_demo(folder: Path) -> DemoData:
    """The truth about a data set that `make_demo` wrote.

    Raises:
        UserError: There is none, or not the whole of it.
    """
    if not (folder / DEMO).is_file():
        raise UserError(f"{folder} holds no demo data: make some with `llmctl msr demo {folder}`")
    with disk_errors_as_user_errors(f"read the demo data in {folder}"):
        rows = csv.DictReader((folder / ATTRIBUTES).read_text(encoding="utf-8").splitlines())
        looks = {row["item"]: Look(row["category"], row["colour"], row["pattern"]) for row in rows}
        lines = (folder / USERS).read_text(encoding="utf-8").splitlines()
    users = [DemoUser.from_dict(json.loads(line)) for line in lines]
    return DemoData(folder, looks, {user.user: user for user in users})


def _check_free(folder: Path) -> None:
    """Refuse a folder with files that are not the demo's own."""
    with disk_errors_as_user_errors(f"read the folder {folder}"):
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = {
        name
        for name in names - {ITEMS, INTERACTIONS, ATTRIBUTES, USERS, PICTURES}
        if not name.startswith(".")
    }
    if foreign:
        raise UserError(f"{folder} is not empty ({min(foreign)!r} is there): give a new or an empty folder")


def deal_looks(s: DemoSettings) -> dict[str, Look]:
    """Items and looks; every 64 items have each category in each colour once, every 256 each pattern too.

    So no colour is rarer than another, which would make its items the popular ones.
    """
    rng = random.Random(derive_seed(s.seed, "looks"))
    dealt: list[Look] = []
    offsets = {(c, colour): rng.randrange(len(PATTERNS)) for c in CATEGORIES for colour in COLOURS}
    for turn in range(-(-s.items // len(offsets))):
        looks = [
            Look(c, colour, PATTERNS[(offset + turn) % len(PATTERNS)])
            for (c, colour), offset in offsets.items()
        ]
        rng.shuffle(looks)
        dealt += looks
    dealt = dealt[: s.items]
    rng.shuffle(dealt)  # an item's number tells nothing of its look
    return {f"i{number:04}": look for number, look in enumerate(dealt)}


def _draw(folder: Path, looks: dict[str, Look], s: DemoSettings, quiet: bool) -> None:
    with progress(len(looks), "draw", "pictures", quiet=quiet) as bar:
        for item, look in looks.items():
            rng = random.Random(derive_seed(s.seed, "picture", item))
            # not one by one flushed to disk, which takes ten times as long as drawing
            with disk_errors_as_user_errors(f"write {folder / PICTURES}"):
                draw_picture(look, rng, s.size).save(folder / PICTURES / f"{item}.png")
            bar.advance()


def _write_tables(folder: Path, looks: dict[str, Look], users: list[DemoUser], s: DemoSettings) -> None:
    titles = make_titles(looks, s.seed)
    _write_csv(
        folder / ITEMS,
        [("item", "title", "image"), *((i, titles[i], f"{PICTURES}/{i}.png") for i in looks)],
    )
    _write_csv(
        folder / ATTRIBUTES,
        [("item", "category", "colour", "pattern"), *((i, *_words(look)) for i, look in looks.items())],
    )
    events = sorted(
        (when, user.user, item)
        for user in users
        for item, when in zip(user.items, user.timestamps, strict=True)
    )
    _write_csv(
        folder / INTERACTIONS,
        [("user", "item", "timestamp"), *((user, item, when) for when, user, item in events)],
    )
    lines = "".join(json.dumps(user.to_dict()) + "\n" for user in users)
    write_bytes(folder / USERS, lines.encode())


def make_titles(looks: dict[str, Look], seed: int) -> dict[str, str]:
    """A title an item: an invented name and the category, which is all that it tells."""
    names = _names(random.Random(derive_seed(seed, "names")))
    return {item: f"{next(names)} {look.category}" for item, look in looks.items()}


def _names(rng: random.Random) -> Iterator[str]:
    """Invented names, each once, such as "Kelmaria"."""
    names = [(a + b + c).capitalize() for a in _SYLLABLES for b in _SYLLABLES for c in _ENDINGS]
    rng.shuffle(names)
    yield from dict.fromkeys(names)


def _words(look: Look) -> tuple[str, str, str]:
    return look.category, look.colour, look.pattern


def _write_csv(path: Path, rows: list[tuple[Any, ...]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_bytes(path, buffer.getvalue().encode())


def _counts(looks: dict[str, Look], users: list[DemoUser]) -> dict[str, int]:
    return {
        "items": len(looks),
        "users": len(users),
        "interactions": sum(len(user.items) for user in users),
        "strays": sum(len(user.strays) for user in users),
    }
