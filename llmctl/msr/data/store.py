"""Parquet files of prepared data: written whole or not at all, and read a few users at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmctl.errors import UserError
from llmctl.msr.data.candidates import CandidateDigest, check_same_data
from llmctl.msr.types import CandidateList, History, Item
from llmctl.runs.chunks import cut
from llmctl.runs.parquet import new_parquet, open_parquet

_ROWS = 2048  # rows per row group, which is what is held in memory at a time

ITEMS = {"id": "string", "title": "string", "text": "string", "image": "string"}
HISTORIES = {"user": "string", "items": "list<string>", "timestamps": "list<double>"}
CANDIDATES = {"user": "string", "split": "string", "items": "list<string>", "labels": "list<int8>"}
SCORES = {"user": "string", "item": "string", "label": "int8", "score": "double"}


class StoredList(NamedTuple):
    """A candidate list, and the split of its user: "valid" or "test"."""

    split: str
    candidates: CandidateList


def write_table(
    path: Path,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Any]],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write a Parquet file as a whole: temporary file beside it, flush to disk, rename.

    Args:
        path: The file.
        columns: Their types by name: string, double, int8, or list<...> of these.
        rows: Values in the order of the columns; consumed while they are written.
        metadata: Key-value pairs stored with the data; may be filled while the rows are consumed.

    Returns:
        The number of rows.

    Raises:
        UserError: The disk refused; an older file stays as it was.
    """
    import pyarrow as pa

    schema = pa.schema([(name, _type(kind)) for name, kind in columns.items()])
    total = 0
    with new_parquet(path, schema) as writer:
        for part in cut(rows, _ROWS):
            arrays = [pa.array(values, field.type) for values, field in zip(zip(*part), schema)]  # noqa: B905
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            total += len(part)
        writer.add_key_value_metadata(dict(metadata or {}))
    return total


def read_table(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file that `write_table` wrote.

    Raises:
        UserError: The file cannot be read, or lacks a column.
    """
    with open_parquet(path, "write it again") as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise UserError(f"{path} has no column {missing[0]!r}: it is not a file of this kind")
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield from batch.to_pylist()


def read_items(path: Path) -> Iterator[Item]:
    """Stream items."""
    return (Item(**row) for row in read_table(path, ITEMS))


def read_histories(path: Path) -> Iterator[History]:
    """Stream histories."""
    for row in read_table(path, HISTORIES):
        yield History(row["user"], tuple(row["items"]), tuple(row["timestamps"]))


def write_candidates(path: Path, lists: Iterable[StoredList], data_version: str) -> str:
    """Store candidate lists with their hash and the version of their data.

    Returns:
        The hash.
    """
    digest = CandidateDigest(data_version)
    metadata = {"data_version": data_version}

    def rows() -> Iterator[tuple[Any, ...]]:
        for split, one in lists:
            digest.add(one)
            yield one.user, split, one.items, one.labels
        metadata["candidate_hash"] = digest.hexdigest()

    write_table(path, CANDIDATES, rows(), metadata)
    return metadata["candidate_hash"]


def read_candidates(path: Path) -> Iterator[StoredList]:
    """Stream candidate lists; see `verify_candidates`."""
    for row in read_table(path, CANDIDATES):
        yield StoredList(row["split"], CandidateList(row["user"], tuple(row["items"]), tuple(row["labels"])))


def verify_candidates(path: Path, data_version: str) -> str:
    """The hash of stored lists, after checking that they belong to the data and were not changed.

    Raises:
        UserError: The lists were made from other data (both versions are named), were changed, or cannot be
            read.
    """
    with open_parquet(path, "write it again") as file:
        stored = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
    if not {"data_version", "candidate_hash"} <= set(stored):
        raise UserError(f"{path} holds no candidate lists of llmctl: give a candidates.parquet of a run")
    check_same_data(str(path), stored["data_version"], data_version)
    digest = CandidateDigest(data_version)
    for one in read_candidates(path):
        digest.add(one.candidates)
    found = digest.hexdigest()
    if found != stored["candidate_hash"]:
        raise UserError(
            f"{path} was changed: its lists have the hash {found}, but were written with "
            f"{stored['candidate_hash']}: restore the file, or draw new lists"
        )
    return found


def _type(kind: str) -> Any:
    import pyarrow as pa

    simple = {"string": pa.string(), "double": pa.float64(), "int8": pa.int8()}
    inner = kind.removeprefix("list<").removesuffix(">")
    return simple[kind] if inner == kind else pa.list_(simple[inner])
