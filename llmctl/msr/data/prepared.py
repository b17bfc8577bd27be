"""Read a run's folder: its recipe, its journals and its prepared data, without the run's lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

from llmctl.errors import UserError
from llmctl.msr.data.filters import FilterStep
from llmctl.msr.data.store import read_candidates, read_histories, read_items, verify_candidates
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.types import CandidateList, History, Item
from llmctl.runs import Journal, load_recipe
from llmctl.runs.files import read_json

PREPARED, CANDIDATES = "data/prepared.json", "data/candidates.parquet"


class Journals(Protocol):
    """A run's folder, as far as reading needs it: a `Run`, or a `StoredRun`."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        ...

    def journal(self, name: str) -> Journal:
        """The journal of that name; a missing one is empty."""
        ...


class StoredRun:
    """A run that is read without its lock, also while another process writes to it.

    Args:
        folder: The folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def journal(self, name: str) -> Journal:
        """The journal of that name, to be read and not appended to."""
        return Journal(self.folder / "journal" / f"{name}.jsonl")


def run_recipe(folder: Path) -> MsrRecipe:
    """The recipe that a run was made with.

    Raises:
        UserError: The folder holds no recipe.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run: give the folder of an `llmctl msr` run with --run")
    return load_recipe(MsrRecipe, folder / "recipe.yaml")


@dataclass(frozen=True)
class DataSummary:
    """Counts and versions of prepared data: what data/prepared.json holds, in its order."""

    steps: tuple[FilterStep, ...]  # what each filter left
    untitled: int  # items with an empty title
    without_text: int  # items without a description
    without_image: int  # items without a picture
    items: int
    users: Mapping[str, int]  # by split
    interactions: Mapping[str, int]  # by split
    data_version: str  # hash of items, histories and split
    candidate_hash: str  # hash of the data version and the candidate lists
    negatives: int  # per candidate list
    chance: Mapping[str, float]  # each metric of a random ranking

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the content of data/prepared.json."""
        known = {field.name: content[field.name] for field in fields(cls)}
        steps = tuple(FilterStep(**step) for step in content["steps"])
        return cls(**{**known, "steps": steps})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedData:
    """The data of a run. Items, histories and candidate lists are streamed from its folder."""

    folder: Path
    summary: DataSummary

    @property
    def facts(self) -> dict[str, Any]:
        """The content of data/prepared.json as plain values."""
        return self.summary.to_dict()

    @property
    def data_version(self) -> str:
        """Hash of items, histories and split."""
        return self.summary.data_version

    @property
    def candidate_hash(self) -> str:
        """Hash of the data version and the candidate lists; it is stored beside every metric."""
        return self.summary.candidate_hash

    def users(self, split: str) -> int:
        """The number of users in a split."""
        return self.summary.users[split]

    def items(self) -> Iterator[Item]:
        """Every item that the filters left, in the order of the items file."""
        return read_items(self.folder / "data/items.parquet")

    def sequences(self, split: str) -> Iterator[History]:
        """The whole histories of a split's users, last items included; those of "train" are to learn from."""
        return read_histories(self.folder / f"data/{split}.parquet")

    def cases(self, split: str) -> Iterator[tuple[History, CandidateList]]:
        """The users of "valid" or "test": the history without the last item, and the candidate list."""
        lists = (one.candidates for one in read_candidates(self.folder / CANDIDATES) if one.split == split)
        for sequence, candidates in zip(self.sequences(split), lists, strict=True):
            yield sequence.split_last()[0], candidates


def open_prepared(folder: Path) -> PreparedData:
    """The prepared data in a run's folder.

    Raises:
        UserError: There is none, or its candidate lists were changed.
    """
    if not (folder / PREPARED).is_file():
        raise UserError(f"{folder} has no prepared data: run `llmctl msr prepare` first")
    prepared = PreparedData(folder, DataSummary.from_dict(read_json(folder / PREPARED)))
    found = verify_candidates(folder / CANDIDATES, prepared.data_version)
    if found != prepared.candidate_hash:
        raise UserError(
            f"{folder / CANDIDATES} has the hash {found}, but the run was prepared with "
            f"{prepared.candidate_hash}: restore it, or --fresh to start over"
        )
    return prepared
