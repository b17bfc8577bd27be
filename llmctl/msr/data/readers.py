"""Readers of data sets: MicroLens, Amazon Reviews 2023, and any pair of files with users, items and times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.msr.data.rows import SourceRow, read_lines, read_rows
from llmctl.msr.recipe import SourceSettings
from llmctl.msr.types import Event, Item, Source
from llmctl.runs.files import disk_errors_as_user_errors

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def open_source(settings: SourceSettings) -> Source:
    """The reader for the format that the settings name.

    Raises:
        UserError: A file or folder that the settings name does not exist.
    """
    for name, path in (("data.interactions", settings.interactions), ("data.items", settings.items)):
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is not there"
            raise UserError(f"{name} is {path}, which {found}: give the path of a file")
    return _READERS[settings.format](settings)


class MicroLens:
    """MicroLens: one line per user (user, tab, item ids in time order), and a CSV file of items and titles.

    Ni et al., "A Content-Driven Micro-Video Recommendation Dataset at Scale" (arXiv 2309.15379).
    """

    has_times = False  # the file has an order, but no times

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._images = image_files(settings.images)

    def events(self) -> Iterator[Event]:
        """See `Source`; timestamps are positions in the file.

        Raises:
            UserError: A line is not a user, a tab and items.
        """
        path, position = self._settings.interactions, 0
        for number, line in read_lines(path):
            if not line.strip():
                continue
            user, tab, items = line.partition("\t")
            if not tab or not user.strip() or "\t" in items:
                raise UserError(
                    f"{path}, line {number}: {line.strip()!r:.60} is not a user, one tab, and item ids with "
                    "blanks between: give the pairs file of MicroLens, or set data.format"
                )
            for item in items.split():
                yield Event(user.strip(), item, float(position))
                position += 1

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        for row in read_rows(self._settings.items):
            item = row.identifier("item")
            yield Item(item, row.text("title"), image=self._images.get(item))


class AmazonReviews:
    """Amazon Reviews 2023: one JSON object per review and one per item, joined by `parent_asin`.

    Hou et al., "Bridging Language and Items for Retrieval and Recommendation" (arXiv 2403.03952). The
    data has URLs of pictures: downloaded ones are looked up by item in the folder `data.images`.
    """

    has_times = True

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._images = image_files(settings.images)

    def events(self) -> Iterator[Event]:
        """See `Source`; timestamps are milliseconds since 1970."""
        for row in read_rows(self._settings.interactions):
            user, item = row.identifier("user_id"), row.identifier("parent_asin")
            yield Event(user, item, read_time(row, "timestamp"))

    def items(self) -> Iterator[Item]:
        """See `Source`; the text is features, then description."""
        for row in read_rows(self._settings.items):
            item = row.identifier("parent_asin")
            texts = [row.text(column) for column in ("features", "description") if column in row.fields]
            yield Item(item, row.text("title"), "\n".join(filter(None, texts)), self._images.get(item))


class FilePair:
    """Any pair of files: interactions with user, item and timestamp; items with item and title.

    Columns `text` and `image` of the items may be missing. Relative image paths are resolved against
    `data.images`, or else against the folder of the items file; an item without a path is looked up by its id
    in `data.images`.
    """

    has_times = True

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._images = image_files(settings.images)

    def events(self) -> Iterator[Event]:
        """See `Source`."""
        s = self._settings.columns
        for row in read_rows(self._settings.interactions):
            yield Event(row.identifier(s.user), row.identifier(s.item), read_time(row, s.timestamp))

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        s = self._settings.columns
        base = self._settings.images or self._settings.items.parent
        for row in read_rows(self._settings.items):
            item = row.identifier(s.item)
            text = row.text(s.text) if s.text in row.fields else ""
            named = row.text(s.image) if s.image in row.fields else ""
            image = str(base / named) if named else self._images.get(item)
            yield Item(item, row.text(s.title), text, image)


def read_time(row: SourceRow, column: str) -> float:
    """A timestamp: a number, or an ISO 8601 date in seconds since 1970 (UTC where it names no zone).

    Raises:
        UserError: The value is neither.
    """
    value: Any = row.get(column)
    if isinstance(value, datetime):
        return _seconds(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and not isinstance(value, bool):
        return number
    try:
        return _seconds(datetime.fromisoformat(str(value).strip()))
    except ValueError as error:
        raise UserError(
            f"{row.place}: column {column!r} is {value!r:.40}, but it must be a number or a date such as "
            "2024-05-31T12:00:00"
        ) from error


def image_files(folder: Path | None) -> dict[str, str]:
    """Paths of the pictures in a folder, by file name without suffix, which is the id of the item.

    Raises:
        UserError: The folder does not exist.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UserError(f"data.images is {folder}, but there is no such folder: give one, or leave it out")
    with disk_errors_as_user_errors(f"read the folder {folder}"):
        found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return {path.stem: str(path) for path in sorted(found)}


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_READERS: dict[str, type[MicroLens] | type[AmazonReviews] | type[FilePair]] = {
    "microlens": MicroLens,
    "amazon": AmazonReviews,
    "files": FilePair,
}
