"""The words of sequential recommendation: items, histories, candidate lists, and readers that give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Item:
    """Something that users choose."""

    id: str
    title: str  # may be empty
    text: str = ""  # description; may be empty
    image: str | None = None  # path of a picture; whether it can be read is for its reader to find out


@dataclass(frozen=True)
class History:
    """What a user chose, the oldest first."""

    user: str
    items: tuple[str, ...]
    timestamps: tuple[float, ...]  # as the data has them; positions 0, 1, ... where it has none

    def __len__(self) -> int:
        return len(self.items)

    def split_last(self) -> tuple[History, str]:
        """The history before the last item, and that item: the target.

        Raises:
            ValueError: There is no item.
        """
        if not self.items:
            raise ValueError(f"the history of user {self.user!r} is empty: it has no last item")
        return History(self.user, self.items[:-1], self.timestamps[:-1]), self.items[-1]


@dataclass(frozen=True)
class CandidateList:
    """The frozen items that every model ranks for a user; exactly one of them is the true next item."""

    user: str
    items: tuple[str, ...]  # N, in the order that they are shown in
    labels: tuple[int, ...]  # N, 1 for the true next item, else 0

    @property
    def target(self) -> str:
        """The true next item."""
        return self.items[self.labels.index(1)]


@dataclass(frozen=True)
class Event:
    """One interaction, as a reader gives it."""

    user: str
    item: str
    timestamp: float


class Source(Protocol):
    """Interactions and items of a data set; every call reads the files anew, one row at a time."""

    has_times: bool
    """Whether timestamps are times that compare between users, not mere positions."""

    def events(self) -> Iterator[Event]:
        """Interactions in the order of the file."""
        ...

    def items(self) -> Iterator[Item]:
        """Items in the order of the file."""
        ...
