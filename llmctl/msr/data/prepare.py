"""Prepare the data of a run, once: read, filter, split, and draw the candidate lists.

data/items.parquet                  every item that the filters left
data/{train,valid,test}.parquet     every user's items in time order, the last one included
data/candidates.parquet             the candidate lists of validation and test users
data/prepared.json                  versions and counts; written last, so it marks the data as complete
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.data.candidates import NegativePool, draw_candidates
from llmctl.msr.data.filters import Interactions, apply_filters, look_up_items, read_events
from llmctl.msr.data.prepared import CANDIDATES, PREPARED, DataSummary, PreparedData, open_prepared
from llmctl.msr.data.readers import open_source
from llmctl.msr.data.split import SPLITS, split_users
from llmctl.msr.data.store import (
    HISTORIES,
    ITEMS,
    StoredList,
    read_candidates,
    read_histories,
    verify_candidates,
    write_candidates,
    write_table,
)
from llmctl.msr.evaluation.metrics import chance_levels
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.types import History, Source
from llmctl.runs import Run


@dataclass(frozen=True)
class _Written:
    """What writing items and histories counted."""

    untitled: int
    without_text: int
    without_image: int
    items: int
    users: dict[str, int]  # by split
    interactions: dict[str, int]  # by split
    data_version: str


def prepare_data(run: Run, recipe: MsrRecipe) -> PreparedData:
    """Prepare the data of a run, or open what an earlier start prepared.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.

    Raises:
        UserError: A file cannot be used (it is named, with the line), nothing is left after a filter, or
            the candidate lists that the recipe names belong to other data.
    """
    if (run.folder / PREPARED).is_file():
        return open_prepared(run.folder)
    source = open_source(recipe.data)
    if recipe.split.by == "time" and not source.has_times:
        raise UserError(
            f"split.by is time, but data.format {recipe.data.format} has no times, only an order: "
            "set split.by=user"
        )
    interactions = read_events(source.events())
    catalogue = look_up_items(interactions, source.items())
    interactions, steps = apply_filters(interactions, catalogue, recipe.filters, str(recipe.data.items))
    splits = split_users(_last_times(interactions), recipe.split, recipe.seed)
    written = _write_data(run, source, interactions, splits)
    candidate_hash = _write_candidates(run, recipe, interactions, written.data_version)
    negatives = _negatives(run.folder / CANDIDATES)
    summary = DataSummary(
        steps=tuple(steps),
        candidate_hash=candidate_hash,
        negatives=negatives,
        chance=chance_levels(negatives + 1),
        **vars(written),
    )
    run.pin(data_version=summary.data_version, candidate_hash=candidate_hash)
    run.write_json(PREPARED, summary.to_dict())
    return open_prepared(run.folder)


def _last_times(interactions: Interactions) -> NDArray[np.float64]:
    """(U,) time of the last interaction of each user that is left, in their order."""
    is_last = np.append(interactions.users[1:] != interactions.users[:-1], True)
    return interactions.times[is_last]


def _write_data(run: Run, source: Source, interactions: Interactions, splits: NDArray[np.int8]) -> _Written:
    """Write items and histories; the version of the data is the hash of everything that is written."""
    digest = hashlib.sha256()
    counts = {"untitled": 0, "without_text": 0, "without_image": 0}
    left = {interactions.item_ids[index] for index in np.unique(interactions.items)}

    def items() -> Iterator[tuple[str | None, ...]]:
        for item in source.items():
            if item.id not in left:
                continue
            left.discard(item.id)  # the first row of an item counts
            counts["untitled"] += not item.title
            counts["without_text"] += not item.text
            counts["without_image"] += item.image is None
            name = None if item.image is None else Path(item.image).name  # wherever the folder lies
            _update(digest, [item.id, item.title, item.text, name])
            yield item.id, item.title, item.text, item.image

    total = write_table(run.path("data/items.parquet"), ITEMS, items())
    users, lengths = {}, {}
    for number, name in enumerate(SPLITS):
        sequences = _sequences(interactions, splits == number, source.has_times)
        users[name], lengths[name] = _write_split(run, name, sequences, digest)
    return _Written(**counts, items=total, users=users, interactions=lengths, data_version=digest.hexdigest())


def _write_split(run: Run, name: str, sequences: Iterable[History], digest: Any) -> tuple[int, int]:
    """Write the histories of a split; gives the numbers of users and of interactions."""
    length = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal length
        for one in sequences:
            length += len(one)
            _update(digest, [name, one.user, one.items, one.timestamps])
            yield one.user, one.items, one.timestamps

    users = write_table(run.path(f"data/{name}.parquet"), HISTORIES, rows())
    return users, length


def _sequences(
    interactions: Interactions, is_wanted: NDArray[np.bool_], has_times: bool
) -> Iterator[History]:
    """Histories of the wanted users (U,) of those that are left."""
    i = interactions
    starts = np.flatnonzero(np.append(True, i.users[1:] != i.users[:-1]))
    ends = np.append(starts[1:], len(i))
    for start, end in zip(starts[is_wanted].tolist(), ends[is_wanted].tolist(), strict=True):
        items = tuple(i.item_ids[index] for index in i.items[start:end].tolist())
        times = i.times[start:end].tolist() if has_times else [float(p) for p in range(end - start)]
        yield History(i.user_ids[i.users[start]], items, tuple(times))


def _write_candidates(run: Run, recipe: MsrRecipe, interactions: Interactions, data_version: str) -> str:
    """Draw the lists of validation and test users, or copy those of another run on the same data."""
    path = run.path(CANDIDATES)
    if (given := recipe.candidates.path) is not None:
        verify_candidates(given, data_version)
        return write_candidates(path, read_candidates(given), data_version)
    indices = np.unique(interactions.items)
    items = [interactions.item_ids[index] for index in indices.tolist()]
    pool = NegativePool.of(items, interactions.item_counts()[indices], recipe.candidates.draw)

    def lists() -> Iterator[StoredList]:
        for split in ("valid", "test"):
            sequences = read_histories(run.folder / f"data/{split}.parquet")
            for one in draw_candidates(sequences, pool, recipe.candidates, recipe.seed):
                yield StoredList(split, one)

    return write_candidates(path, lists(), data_version)


def _negatives(path: Path) -> int:
    first = next(read_candidates(path))
    return len(first.candidates.items) - 1


def _update(digest: Any, values: list[Any]) -> None:
    digest.update(json.dumps(values).encode() + b"\n")
