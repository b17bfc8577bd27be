"""From files to prepared data in a run: read, filter, split, draw the candidate lists; once a run.

data/items.parquet                  every item that is left
data/{train,valid,test}.parquet     every user's items in time order, the last one included
data/candidates.parquet             the frozen lists of validation and test users
data/prepared.json                  versions and counts; written last, so it says that all is there
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
from llmctl.msr.data.candidates import Pool, draw_candidates
from llmctl.msr.data.filters import Interactions, apply_filters, look_up_items, read_events
from llmctl.msr.data.readers import open_source
from llmctl.msr.data.split import SPLITS, split_users
from llmctl.msr.data.store import (
    HISTORIES,
    ITEMS,
    StoredList,
    read_candidates,
    read_histories,
    read_items,
    verify_candidates,
    write_candidates,
    write_table,
)
from llmctl.msr.evaluation.metrics import chance_levels
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.types import CandidateList, History, Item, Source
from llmctl.runs import Run
from llmctl.runs.files import read_json

PREPARED, CANDIDATES = "data/prepared.json", "data/candidates.parquet"


@dataclass(frozen=True)
class Prepared:
    """The data of a run; everything is streamed from its folder."""

    folder: Path
    facts: dict[str, Any]  # what data/prepared.json holds

    @property
    def data_version(self) -> str:
        """Hash of items, histories and split."""
        return str(self.facts["data_version"])

    @property
    def candidate_hash(self) -> str:
        """Hash of the data version and the candidate lists; it goes beside every figure."""
        return str(self.facts["candidate_hash"])

    def users(self, split: str) -> int:
        """How many users a split has."""
        return int(self.facts["users"][split])

    def items(self) -> Iterator[Item]:
        """Every item that is left, in the order of the items file."""
        return read_items(self.folder / "data/items.parquet")

    def sequences(self, split: str) -> Iterator[History]:
        """All that the users of a split chose, the last item included: to learn from where it is train."""
        return read_histories(self.folder / f"data/{split}.parquet")

    def cases(self, split: str) -> Iterator[tuple[History, CandidateList]]:
        """The users of valid or test: what came before the last item, and the list that holds that item."""
        lists = (one.candidates for one in read_candidates(self.folder / CANDIDATES) if one.split == split)
        for sequence, candidates in zip(self.sequences(split), lists, strict=True):
            yield sequence.split_last()[0], candidates


def prepare_data(run: Run, recipe: MsrRecipe) -> Prepared:
    """Prepare the data of a run, or take what an earlier start prepared.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.

    Raises:
        UserError: A file can not be used (it is named, with the line), nothing is left after a filter, or
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
    facts: dict[str, Any] = {"steps": steps}
    facts |= _write_data(run, source, interactions, splits)
    facts["candidate_hash"] = _write_candidates(run, recipe, interactions, facts["data_version"])
    facts["negatives"] = _negatives(run.folder / CANDIDATES)
    facts["chance"] = chance_levels(facts["negatives"] + 1)
    run.pin(data_version=facts["data_version"], candidate_hash=facts["candidate_hash"])
    run.write_json(PREPARED, facts)
    return open_prepared(run.folder)


def open_prepared(folder: Path) -> Prepared:
    """The prepared data of a run's folder.

    Raises:
        UserError: There is none, or its candidate lists were changed.
    """
    if not (folder / PREPARED).is_file():
        raise UserError(f"{folder} has no prepared data: run `llmctl msr prepare` first")
    prepared = Prepared(folder, read_json(folder / PREPARED))
    found = verify_candidates(folder / CANDIDATES, prepared.data_version)
    if found != prepared.candidate_hash:
        raise UserError(
            f"{folder / CANDIDATES} has the hash {found}, but the run was prepared with "
            f"{prepared.candidate_hash}: restore it, or --fresh to start over"
        )
    return prepared


def _last_times(interactions: Interactions) -> NDArray[np.float64]:
    """(U,) time of the last interaction of each user that is left, in their order."""
    is_last = np.append(interactions.users[1:] != interactions.users[:-1], True)
    return interactions.times[is_last]


def _write_data(
    run: Run, source: Source, interactions: Interactions, splits: NDArray[np.int8]
) -> dict[str, Any]:
    """Write items and histories; the version of the data is the hash of all that is written."""
    digest = hashlib.sha256()
    facts: dict[str, Any] = {"untitled": 0, "without_text": 0, "without_image": 0}
    left = {interactions.item_ids[place] for place in np.unique(interactions.items)}

    def items() -> Iterator[tuple[str | None, ...]]:
        for item in source.items():
            if item.id not in left:
                continue
            left.discard(item.id)  # the first row of an item counts
            facts["untitled"] += not item.title
            facts["without_text"] += not item.text
            facts["without_image"] += item.image is None
            name = None if item.image is None else Path(item.image).name  # wherever the folder lies
            _update(digest, [item.id, item.title, item.text, name])
            yield item.id, item.title, item.text, item.image

    facts["items"] = write_table(run.path("data/items.parquet"), ITEMS, items())
    facts["users"], facts["interactions"] = {}, {}
    for place, name in enumerate(SPLITS):
        sequences = _sequences(interactions, splits == place, source.has_times)
        length = 0

        def rows(name: str = name, sequences: Iterable[History] = sequences) -> Iterator[tuple[Any, ...]]:
            nonlocal length
            for one in sequences:
                length += len(one)
                _update(digest, [name, one.user, one.items, one.timestamps])
                yield one.user, one.items, one.timestamps

        facts["users"][name] = write_table(run.path(f"data/{name}.parquet"), HISTORIES, rows())
        facts["interactions"][name] = length
    facts["data_version"] = digest.hexdigest()
    return facts


def _sequences(
    interactions: Interactions, is_wanted: NDArray[np.bool_], has_times: bool
) -> Iterator[History]:
    """Histories of the wanted users (U,) of those that are left."""
    i = interactions
    starts = np.flatnonzero(np.append(True, i.users[1:] != i.users[:-1]))
    ends = np.append(starts[1:], len(i))
    for start, end in zip(starts[is_wanted].tolist(), ends[is_wanted].tolist(), strict=True):
        items = tuple(i.item_ids[place] for place in i.items[start:end].tolist())
        times = i.times[start:end].tolist() if has_times else [float(p) for p in range(end - start)]
        yield History(i.user_ids[i.users[start]], items, tuple(times))


def _write_candidates(run: Run, recipe: MsrRecipe, interactions: Interactions, data_version: str) -> str:
    """Draw the lists of validation and test users, or take those of another run on the same data."""
    path = run.path(CANDIDATES)
    if (given := recipe.candidates.path) is not None:
        verify_candidates(given, data_version)
        return write_candidates(path, read_candidates(given), data_version)
    places = np.unique(interactions.items)
    items = [interactions.item_ids[place] for place in places.tolist()]
    pool = Pool.of(items, interactions.item_counts()[places], recipe.candidates.draw)

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
