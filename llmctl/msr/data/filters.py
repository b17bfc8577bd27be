"""Interactions in columns, and the filters that they go through; each says what it did."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.recipe import FilterSettings
from llmctl.msr.types import Event, Item


@dataclass(frozen=True)
class Interactions:
    """E interactions as numbers; 16 bytes each, whatever their users and items are called."""

    users: NDArray[np.int32]  # (E,) places in `user_ids`
    items: NDArray[np.int32]  # (E,) places in `item_ids`
    times: NDArray[np.float64]  # (E,)
    user_ids: list[str]
    item_ids: list[str]

    def __len__(self) -> int:
        return len(self.users)

    def keep(self, mask: NDArray[np.bool_]) -> Interactions:
        """Those where the mask (E,) is true, in the same order."""
        return Interactions(
            self.users[mask], self.items[mask], self.times[mask], self.user_ids, self.item_ids
        )

    def user_counts(self) -> NDArray[np.int64]:
        """Interactions of each user, by place."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    def item_counts(self) -> NDArray[np.int64]:
        """Interactions of each item, by place."""
        return np.bincount(self.items, minlength=len(self.item_ids))


@dataclass(frozen=True)
class Step:
    """What is left after a filter."""

    name: str
    interactions: int
    users: int
    items: int
    found: str = ""  # what the filter met, in words

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass
class Catalogue:
    """What is known of the items before their titles are read: which there are, and which have a title."""

    is_known: NDArray[np.bool_]  # (items,) by place
    has_title: NDArray[np.bool_]  # (items,) by place
    repeated: int = 0  # rows of items that were there before; the first one counts
    first_unknown: str | None = field(default=None)


def read_events(events: Iterable[Event]) -> Interactions:
    """Put interactions into columns, in their order.

    Raises:
        UserError: There are none.
    """
    users, items, times = array("i"), array("i"), array("d")
    user_places: dict[str, int] = {}
    item_places: dict[str, int] = {}
    for event in events:
        users.append(user_places.setdefault(event.user, len(user_places)))
        items.append(item_places.setdefault(event.item, len(item_places)))
        times.append(event.timestamp)
    if not users:
        raise UserError("the interactions file has no interactions: give one with at least a row")
    return Interactions(
        np.frombuffer(users, dtype=np.int32),
        np.frombuffer(items, dtype=np.int32),
        np.frombuffer(times, dtype=np.float64),
        list(user_places),
        list(item_places),
    )


def look_up_items(interactions: Interactions, items: Iterable[Item]) -> Catalogue:
    """Which of the items that were interacted with are known, and have a title."""
    places = {item: place for place, item in enumerate(interactions.item_ids)}
    found = Catalogue(np.zeros(len(places), bool), np.zeros(len(places), bool))
    for item in items:
        place = places.get(item.id)
        if place is None:
            continue  # nobody chose it
        if found.is_known[place]:
            found.repeated += 1
            continue
        found.is_known[place] = True
        found.has_title[place] = bool(item.title)
    unknown = np.flatnonzero(~found.is_known)
    found.first_unknown = interactions.item_ids[unknown[0]] if len(unknown) else None
    return found


def apply_filters(
    interactions: Interactions, catalogue: Catalogue, settings: FilterSettings, place: str
) -> tuple[Interactions, list[Step]]:
    """Sort each user's interactions by time, and filter.

    Args:
        interactions: In the order of the file.
        catalogue: What is known of the items.
        settings: Which filters.
        place: The items file, for messages.

    Returns:
        Interactions user by user, each in time order; and what was left after each step.

    Raises:
        UserError: Nothing is left, or items are unknown and are to be refused.
    """
    steps = [_step("read", interactions, f"{catalogue.repeated:,} repeated item rows ignored")]

    def apply(name: str, filter_: Callable[[Interactions], tuple[Interactions, str]]) -> None:
        nonlocal interactions
        interactions, found = filter_(interactions)
        steps.append(_step(name, interactions, found))
        if not len(interactions):
            last = steps[-2]
            raise UserError(
                f"filter {name!r} left nothing of {last.interactions:,} interactions ({last.users:,} users, "
                f"{last.items:,} items): loosen the filters, or check that the files belong together"
            )

    apply("in time order", sort_by_time)
    apply("no duplicates", drop_duplicates)
    apply("known items", lambda kept: _drop_unknown(kept, catalogue, settings, place))
    apply("titles", lambda kept: _drop_untitled(kept, catalogue, settings))
    core = (settings.item_core, settings.user_core)
    apply(f"{core[0]}-core items, {core[1]}-core users", lambda kept: k_core(kept, *core))
    need = max(settings.min_history + 1, settings.user_core)
    apply(f"history of {settings.min_history} or more", lambda kept: k_core(kept, settings.item_core, need))
    return interactions, steps


def sort_by_time(interactions: Interactions) -> tuple[Interactions, str]:
    """User by user, each in time order; equal times stay in the order of the file."""
    i = interactions
    by_user = np.argsort(i.users, kind="stable")
    users, times = i.users[by_user], i.times[by_user]
    late = int(((users[1:] == users[:-1]) & (times[1:] < times[:-1])).sum())
    order = np.lexsort((i.times, i.users))  # stable
    sorted_ = Interactions(i.users[order], i.items[order], i.times[order], i.user_ids, i.item_ids)
    return sorted_, f"{late:,} out of order, sorted"


def drop_duplicates(interactions: Interactions) -> tuple[Interactions, str]:
    """Of a user's interactions with one item, the first alone."""
    keys = interactions.users.astype(np.int64) * len(interactions.item_ids) + interactions.items
    mask = np.zeros(len(keys), bool)
    mask[np.unique(keys, return_index=True)[1]] = True
    return interactions.keep(mask), f"{int((~mask).sum()):,} duplicates dropped"


def k_core(interactions: Interactions, item_core: int, user_core: int) -> tuple[Interactions, str]:
    """Drop items and users with too few interactions until nothing changes any more.

    Args:
        interactions: Of any order, which is kept.
        item_core: Interactions that each item is left with at least.
        user_core: Interactions that each user is left with at least.

    Returns:
        The largest set of interactions of which that is true, and the number of passes in words.
    """
    kept, passes = interactions, 0
    while True:
        mask = (kept.item_counts() >= item_core)[kept.items] & (kept.user_counts() >= user_core)[kept.users]
        if mask.all():
            return kept, f"{passes} {'pass' if passes == 1 else 'passes'}"
        kept, passes = kept.keep(mask), passes + 1


def _drop_unknown(
    interactions: Interactions, catalogue: Catalogue, settings: FilterSettings, place: str
) -> tuple[Interactions, str]:
    mask = catalogue.is_known[interactions.items]
    lost = int((~mask).sum())
    unknown = int((~catalogue.is_known).sum())
    if lost and settings.unknown_items == "refuse":
        raise UserError(
            f"{place} does not know {unknown:,} of the items that users chose, such as "
            f"{catalogue.first_unknown!r}: add them, or set filters.unknown_items=drop"
        )
    return interactions.keep(mask), f"{lost:,} interactions with {unknown:,} unknown items dropped"


def _drop_untitled(
    interactions: Interactions, catalogue: Catalogue, settings: FilterSettings
) -> tuple[Interactions, str]:
    has_title = catalogue.has_title[interactions.items]
    untitled = len(np.unique(interactions.items[~has_title]))
    if settings.empty_titles == "keep":
        return interactions, f"{untitled:,} items with an empty title kept"
    return interactions.keep(has_title), f"{untitled:,} items with an empty title dropped"


def _step(name: str, interactions: Interactions, found: str = "") -> Step:
    users, items = len(np.unique(interactions.users)), len(np.unique(interactions.items))
    return Step(name, len(interactions), users, items, found)
