from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.msr.data.filters import (
    apply_filters,
    drop_duplicates,
    k_core,
    look_up_items,
    read_events,
    sort_by_time,
)
from llmctl.msr.recipe import FilterSettings
from llmctl.msr.types import Event, Item

EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=60)


def columns(rows):
    return read_events(Event(str(u), str(i), float(t)) for u, i, t in rows)


def names(found):
    """The interactions as (user, item, time)."""
    return [
        (found.user_ids[u], found.item_ids[i], t)
        for u, i, t in zip(found.users.tolist(), found.items.tolist(), found.times.tolist(), strict=True)
    ]


def test_users_are_sorted_by_time_and_ties_keep_the_order_of_the_file():
    found, said = sort_by_time(columns([("b", "x", 3), ("a", "y", 1), ("b", "z", 1), ("b", "w", 1)]))
    assert names(found) == [("b", "z", 1), ("b", "w", 1), ("b", "x", 3), ("a", "y", 1)]
    assert said == "1 out of order, sorted"


def test_of_duplicates_the_earliest_stays():
    found, _ = sort_by_time(columns([("a", "x", 5), ("a", "y", 2), ("a", "x", 1), ("b", "x", 9)]))
    found, said = drop_duplicates(found)
    assert names(found) == [("a", "x", 1), ("a", "y", 2), ("b", "x", 9)]
    assert said == "1 duplicates dropped"


def test_the_k_core_goes_on_until_nothing_changes():
    # dropping y leaves b with 1, dropping b leaves x with 1, and so on: one chain, a step a pass
    rows = [("a", "x", 1), ("a", "w", 2), ("b", "x", 1), ("b", "y", 2), ("c", "w", 1)]
    found, said = k_core(columns(rows), 2, 2)
    assert names(found) == [] and said == "3 passes"


@given(EVENTS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_k_core_is_what_removal_one_by_one_leaves(rows, item_core, user_core):
    kept = list(rows)
    while True:  # an obvious, slow way
        users, items = Counter(u for u, _, _ in kept), Counter(i for _, i, _ in kept)
        bad = next((r for r in kept if users[r[0]] < user_core or items[r[1]] < item_core), None)
        if bad is None:
            break
        kept.remove(bad)
    found, _ = k_core(columns(rows), item_core, user_core)
    assert sorted(names(found)) == sorted((str(u), str(i), float(t)) for u, i, t in kept)


def filtered(rows, items, **changes):
    settings_ = FilterSettings(**{"item_core": 1, "user_core": 1, "min_history": 1, **changes})
    read = columns(rows)
    return apply_filters(read, look_up_items(read, items), settings_, "items.csv")


ROWS = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 1), ("b", "gone", 2), ("c", "y", 1)]
ITEMS = [Item("x", "X"), Item("y", ""), Item("z", "Z"), Item("x", "again"), Item("unused", "U")]


def test_every_filter_is_counted():
    found, steps = filtered(ROWS, ITEMS, empty_titles="drop")
    assert names(found) == [("a", "x", 1), ("a", "z", 3)]
    said = {step.name: (step.interactions, step.users, step.items, step.found) for step in steps}
    assert said["read"] == (6, 3, 4, "1 repeated item rows ignored")
    assert said["known items"] == (5, 3, 3, "1 interactions with 1 unknown items dropped")
    assert said["titles"] == (3, 2, 2, "1 items with an empty title dropped")
    assert said["history of 1 or more"] == (2, 1, 2, "1 pass")


def test_items_with_an_empty_title_are_kept_and_counted_by_default():
    found, steps = filtered(ROWS, ITEMS)
    assert ("a", "y", 2) in names(found)
    assert "1 items with an empty title kept" in [step.found for step in steps]


def test_unknown_items_may_be_refused():
    with pytest.raises(UserError, match=r"items\.csv does not know 1 of the items .* 'gone'"):
        filtered(ROWS, ITEMS, unknown_items="refuse")


def test_the_filter_that_leaves_nothing_is_named():
    with pytest.raises(UserError, match="filter '9-core items, 1-core users' left nothing of 5 interactions"):
        filtered(ROWS, ITEMS, item_core=9)
    with pytest.raises(UserError, match="no interactions"):
        read_events([])


def test_after_all_filters_every_user_and_item_has_enough():
    rng = np.random.default_rng(0)
    rows = [(int(u), int(i), t) for t, (u, i) in enumerate(rng.zipf(1.4, (4000, 2)) % 150)]
    found, _ = filtered(
        rows, [Item(str(i), "t") for i in range(150)], item_core=4, user_core=3, min_history=5
    )
    assert Counter(found.users.tolist()).most_common()[-1][1] >= 6
    assert Counter(found.items.tolist()).most_common()[-1][1] >= 4
