"""The data types of sequential recommendation, and the interface of a data source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Item:
    """Something that users interact with."""

    id: str
    title: str  # may be empty
    text: str = ""  # description; may be empty
    image: str | None = None  # path of a picture; it is not checked here that the picture can be read


@dataclass(frozen=True)
class History:
    """The items that a user interacted with, the oldest first."""

    user: str
    items: tuple[str, ...]
    timestamps: tuple[float, ...]  # as the data has them; positions 0, 1, ... where it has none

    def __len__(self) -> int:
        return len(self.items)

    def split_last(self) -> tuple[History, str]:
        """The history before the last item, and the last item, which is the target.

        Raises:
            ValueError: The history is empty.
        """
        if not self.items:
            raise ValueError(f"the history of user {self.user!r} is empty: it has no last item")
        return History(self.user, self.items[:-1], self.timestamps[:-1]), self.items[-1]


@dataclass(frozen=True)
class CandidateList:
    """The fixed list of items that every model ranks for one user; exactly one is the true next item."""

    user: str
    items: tuple[str, ...]  # N, in the order in which models see them
    labels: tuple[int, ...]  # N, 1 for the true next item, else 0

    @property
    def target(self) -> str:
        """The true next item."""
        return self.items[self.labels.index(1)]


@dataclass(frozen=True)
class Event:
    """One interaction, as a data source yields it."""

    user: str
    item: str
    timestamp: float


class Source(Protocol):
    """Interactions and items of a data set. Every call reads the files again, one row at a time."""

    has_times: bool
    """Whether timestamps are times that can be compared between users, and not only positions."""

    def events(self) -> Iterator[Event]:
        """Interactions in the order of the file."""
        ...

    def items(self) -> Iterator[Item]:
        """Items in the order of the file."""
        ...
