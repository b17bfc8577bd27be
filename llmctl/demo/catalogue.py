"""Make the demo data set: a few hundred drawn items, and users whose taste changes and is known."""

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
from llmctl.demo.data import (
    ATTRIBUTES,
    DEMO,
    FILES,
    INTERACTIONS,
    ITEMS,
    PICTURES,
    USERS,
    DemoData,
    open_demo,
)
from llmctl.demo.oracles import write_oracles
from llmctl.demo.pictures import draw_picture
from llmctl.demo.users import DemoUser, TasteSettings, simulate_user
from llmctl.errors import UserError
from llmctl.runs import progress
from llmctl.runs.files import disk_errors_as_user_errors, make_folder, read_json, write_bytes, write_json
from llmctl.sampling.common import derive_seed

_FORMAT = 1  # incremented when the same seed gives other data
_SYLLABLES = ("al", "bor", "cor", "del", "en", "fi", "gar", "hol", "is", "jun", "kel", "lum", "mar", "nor")
_ENDINGS = ("a", "o", "en", "is", "um", "ia", "ott", "ell")


@dataclass(frozen=True)
class DemoSettings:
    """The size of the data set, and how its users choose."""

    items: int = 384
    """Number of items, spread evenly over all combinations of category, colour and pattern."""
    users: int = 300
    """Number of users."""
    size: int = 224
    """Width and height of a picture in pixels."""
    seed: int = 0
    """Seed for items, pictures and users."""
    choices: TasteSettings = field(default_factory=TasteSettings)
    """How users choose."""

    def __post_init__(self) -> None:
        """Refuse settings that give no data set.

        Raises:
            UserError: A number is too small.
        """
        for name, least in (("items", 64), ("users", 1), ("size", 16), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}, but the demo needs {least} or more")


def make_demo(folder: Path, settings: DemoSettings | None = None, *, quiet: bool = False) -> DemoData:
    """Write the demo data set, or open the one that the folder holds.

    A folder that lacks the file of upper bounds, as older versions made it, gets one.

    Args:
        folder: A new or empty folder, or a demo folder with the same settings, complete or not.
        settings: Size of the data set; None for the defaults.
        quiet: Show no progress.

    Raises:
        UserError: The folder holds other files or other demo data, or cannot be written.
    """
    s = settings or DemoSettings()
    wanted = {"format": _FORMAT, "settings": json.loads(json.dumps(asdict(s)))}
    made = folder / DEMO
    if made.is_file():
        found = read_json(made)
        if {key: found.get(key) for key in wanted} != wanted:
            raise UserError(f"{folder} holds demo data with other settings: choose another folder")
        data = open_demo(folder)
        if not data.bounds.is_file():
            write_oracles(data)
        return data
    _check_free(folder)
    make_folder(folder / PICTURES)
    looks = deal_looks(s)
    _draw(folder, looks, s, quiet)
    users = [simulate_user(f"u{number:04}", looks, s.seed, s.choices) for number in range(s.users)]
    _write_tables(folder, looks, users, s)
    write_oracles(DemoData(folder, looks, {user.user: user for user in users}))
    write_json(made, wanted | _counts(looks, users))
    return open_demo(folder)


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds files other than those of the demo."""
    with disk_errors_as_user_errors(f"read the folder {folder}"):
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = {name for name in names - FILES if not name.startswith(".")}
    if foreign:
        raise UserError(f"{folder} is not empty ({min(foreign)!r} is there): give a new or an empty folder")


def deal_looks(s: DemoSettings) -> dict[str, Look]:
    """The look of each item.

    Every 64 items have each category in each colour once, and every 256 items each pattern of these, too.
    So no colour is rarer than another: items of a rare colour would be chosen more often.
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
    rng.shuffle(dealt)  # an item's id is independent of its look
    return {f"i{number:04}": look for number, look in enumerate(dealt)}


def _draw(folder: Path, looks: dict[str, Look], s: DemoSettings, quiet: bool) -> None:
    with progress(len(looks), "draw", "pictures", quiet=quiet) as bar:
        for item, look in looks.items():
            rng = random.Random(derive_seed(s.seed, "picture", item))
            # pictures are not flushed to disk one by one, which takes ten times as long as drawing
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
    """A title per item: an invented name and the category, and nothing else about the item."""
    names = _names(random.Random(derive_seed(seed, "names")))
    return {item: f"{next(names)} {look.category}" for item, look in looks.items()}


def _names(rng: random.Random) -> Iterator[str]:
    """Invented names without repetition, such as "Kelmaria"."""
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
