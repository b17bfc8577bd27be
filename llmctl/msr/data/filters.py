"""Interactions in columns, and the filters that are applied to them; each filter reports what it did."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.recipe import FilterSettings
from llmctl.msr.types import Event, Item


@dataclass(frozen=True)
class Interactions:
    """E interactions as arrays: 16 bytes each, however long the names of users and items are."""

    users: NDArray[np.int32]  # (E,) indices into `user_ids`
    items: NDArray[np.int32]  # (E,) indices into `item_ids`
    times: NDArray[np.float64]  # (E,)
    user_ids: list[str]
    item_ids: list[str]

    def __len__(self) -> int:
        return len(self.users)

    def keep(self, mask: NDArray[np.bool_]) -> Interactions:
        """The interactions where the mask (E,) is true, in the same order."""
        return Interactions(
            self.users[mask], self.items[mask], self.times[mask], self.user_ids, self.item_ids
        )

    def user_counts(self) -> NDArray[np.int64]:
        """(users,) number of interactions by index of the user."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    def item_counts(self) -> NDArray[np.int64]:
        """(items,) number of interactions by index of the item."""
        return np.bincount(self.items, minlength=len(self.item_ids))


@dataclass(frozen=True)
class FilterStep:
    """Counts after a filter."""

    name: str
    interactions: int
    users: int
    items: int
    found: str = ""  # what the filter found, in words


@dataclass(frozen=True)
class Catalogue:
    """Which of the items that were interacted with are in the items file, and which have a title."""

    is_known: NDArray[np.bool_]  # (items,)
    has_title: NDArray[np.bool_]  # (items,)
    repeated: int  # rows of items that occurred before; the first row counts
    first_unknown: str | None  # None where all are known


def read_events(events: Iterable[Event]) -> Interactions:
    """Read interactions into columns, in their order.

    Raises:
        UserError: There are none.
    """
    users, items, times = array("i"), array("i"), array("d")
    user_indices: dict[str, int] = {}
    item_indices: dict[str, int] = {}
    for event in events:
        users.append(user_indices.setdefault(event.user, len(user_indices)))
        items.append(item_indices.setdefault(event.item, len(item_indices)))
        times.append(event.timestamp)
    if not users:
        raise UserError("the interactions file has no interactions: give one with at least one row")
    return Interactions(
        np.frombuffer(users, dtype=np.int32),
        np.frombuffer(items, dtype=np.int32),
        np.frombuffer(times, dtype=np.float64),
        list(user_indices),
        list(item_indices),
    )


def look_up_items(interactions: Interactions, items: Iterable[Item]) -> Catalogue:
    """Look up the items that were interacted with in the items of the data set."""
    indices = {item: index for index, item in enumerate(interactions.item_ids)}
    is_known, has_title, repeated = np.zeros(len(indices), bool), np.zeros(len(indices), bool), 0
    for item in items:
        index = indices.get(item.id)
        if index is None:
            continue  # no user interacted with it
        if is_known[index]:
            repeated += 1
            continue
        is_known[index] = True
        has_title[index] = bool(item.title)
    unknown = np.flatnonzero(~is_known)
    first_unknown = interactions.item_ids[unknown[0]] if len(unknown) else None
    return Catalogue(is_known, has_title, repeated, first_unknown)


def apply_filters(
    interactions: Interactions, catalogue: Catalogue, settings: FilterSettings, place: str
) -> tuple[Interactions, list[FilterStep]]:
    """Sort each user's interactions by time, and apply the filters.

    Args:
        interactions: In the order of the file.
        catalogue: Which items are known.
        settings: Which filters to apply.
        place: Path of the items file, for messages.

    Returns:
        Interactions user by user, each user's in time order; and the counts after each step.

    Raises:
        UserError: Nothing is left, or items are unknown and the settings refuse them.
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
    """Sort user by user, each user's in time order; equal times stay in the order of the file."""
    i = interactions
    by_user = np.argsort(i.users, kind="stable")
    users, times = i.users[by_user], i.times[by_user]
    late = int(((users[1:] == users[:-1]) & (times[1:] < times[:-1])).sum())
    order = np.lexsort((i.times, i.users))  # stable
    sorted_ = Interactions(i.users[order], i.items[order], i.times[order], i.user_ids, i.item_ids)
    return sorted_, f"{late:,} out of order, sorted"


def drop_duplicates(interactions: Interactions) -> tuple[Interactions, str]:
    """Keep only the first of a user's interactions with an item."""
    keys = interactions.users.astype(np.int64) * len(interactions.item_ids) + interactions.items
    mask = np.zeros(len(keys), bool)
    mask[np.unique(keys, return_index=True)[1]] = True
    return interactions.keep(mask), f"{int((~mask).sum()):,} duplicates dropped"


def k_core(interactions: Interactions, item_core: int, user_core: int) -> tuple[Interactions, str]:
    """Drop items and users with too few interactions, until nothing changes any more.

    Args:
        interactions: In any order, which is kept.
        item_core: Fewest interactions of an item.
        user_core: Fewest interactions of a user.

    Returns:
        The largest set of interactions that meets both, and the number of passes in words.
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


def _step(name: str, interactions: Interactions, found: str = "") -> FilterStep:
    users, items = len(np.unique(interactions.users)), len(np.unique(interactions.items))
    return FilterStep(name, len(interactions), users, items, found)
