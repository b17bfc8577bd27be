"""Results as Parquet, one row a sample: encoding a shard's part, and merging parts in the order of the plan.

A row group holds whole problems of one (model, task, protocol, seed), so that the summary can stream.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.plan import Shard
from llmctl.runs.files import disk_error
from llmctl.runs.parquet import new_parquet, open_parquet

RESULTS = "results.parquet"
GROUP_ROWS = 1 << 17  # rows of a row group at most, where one shard has no more

_TYPES = {
    "model": "string",  # the entry's name in the job
    "adapter": "string",  # its folder; null for none
    "task": "string",
    "protocol": "string",
    "seed": "int64",
    "problem": "string",  # id within the task
    "sample": "int32",  # from 0
    "turn": "int32",  # from 1
    "text": "string",
    "reward": "float64",
    "tokens": "int32",  # new tokens of this sample
    "is_correct": "bool",
    "answer": "string",  # as read from the text, for votes; null where none can be read
    "error": "string",  # why there is no text; null where there is one
}
COLUMNS = tuple(_TYPES)

Row = tuple[str, int, int, str, float, int, bool, str | None, str | None]  # the columns from `problem` on


@dataclass(frozen=True)
class Part:
    """A finished shard: its file, and what the journal says of it."""

    shard: Shard
    path: Path
    rows: int
    digest: str  # of the file's bytes


def encode_part(shard: Shard, adapter: str | None, rows: Sequence[Row]) -> bytes:
    """The rows of a shard as a Parquet file; equal rows give equal bytes.

    Args:
        shard: Whose they are.
        adapter: The adapter of its model.
        rows: Values of the columns from `problem` on, by problem, sample and turn.
    """
    import pyarrow as pa
    from pyarrow import parquet

    fixed = (shard.model, adapter, shard.task, shard.protocol, shard.seed)
    columns = [[value] * len(rows) for value in fixed] + [list(column) for column in zip(*rows, strict=True)]
    schema = result_schema()
    arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    sink = io.BytesIO()
    # snappy, for speed: a part is read once, and merging packs it tighter
    with parquet.ParquetWriter(sink, schema, compression="snappy") as writer:
        writer.write_table(pa.table(arrays, schema=schema))
    return sink.getvalue()


def part_digest(data: bytes) -> str:
    """What the journal keeps of a part's bytes."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def check_parts(plan: Sequence[Shard], parts: Sequence[Part]) -> list[Part]:
    """Bring parts into the order of the plan.

    Returns:
        One part a shard.

    Raises:
        UserError: A shard is missing, there twice, or not of this plan.
    """
    by_key: dict[str, Part] = {}
    for part in parts:
        if part.shard.key in by_key:
            raise UserError(
                f"shard {part.shard} is there twice, and results count each once: remove one of the two"
            )
        by_key[part.shard.key] = part
    planned = {shard.key for shard in plan}
    if strange := [part for key, part in by_key.items() if key not in planned]:
        raise UserError(f"shard {strange[0].shard} is not of this job's plan: merge parts of one job only")
    if missing := [shard for shard in plan if shard.key not in by_key]:
        raise UserError(
            f"{len(missing)} of {len(plan)} shards are missing (first: {missing[0]}): "
            "run the job again to finish it"
        )
    return [by_key[shard.key] for shard in plan]


def merge_parts(plan: Sequence[Shard], parts: Sequence[Part], path: Path) -> int:
    """Write the parts of a job as one file, whole or not at all.

    Args:
        plan: The shards that must be there, in the order of the results.
        parts: Finished ones, in any order.
        path: The file.

    Returns:
        How many rows.

    Raises:
        UserError: As `check_parts`; a part is not what the journal says of it; or the disk refused.
    """
    return write_results(path, _tables(check_parts(plan, parts)))


def write_results(path: Path, tables: Iterable[Any]) -> int:
    """Write Arrow tables as one file, each a row group; whole or not at all.

    Returns:
        How many rows.

    Raises:
        UserError: The disk refused; an old file is untouched.
    """
    total = 0
    with new_parquet(path, result_schema()) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            total += table.num_rows
    return total


def read_groups(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The row groups of a results file as Arrow tables, one at a time.

    Raises:
        UserError: It is not there, can not be read, or lacks a column.
    """
    with open_parquet(path, "run the job again") as file:
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise UserError(f"{path} has no column {missing[0]!r}: it is not the result of a job")
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns))


def result_schema() -> Any:
    """The Arrow schema of results."""
    import pyarrow as pa

    types: Mapping[str, Any] = {
        "string": pa.string(),
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    return pa.schema([(name, types[kind]) for name, kind in _TYPES.items()])


def _tables(parts: Sequence[Part]) -> Iterator[Any]:
    """Tables of whole shards, each of one cell and of up to `GROUP_ROWS` rows."""
    import pyarrow as pa

    held: list[Any] = []
    cell: Any = None
    for part in parts:
        table = _read_part(part)
        is_full = sum(t.num_rows for t in held) + table.num_rows > GROUP_ROWS
        if held and (part.shard.cell != cell or is_full):
            yield pa.concat_tables(held)
            held = []
        held.append(table)
        cell = part.shard.cell
    if held:
        yield pa.concat_tables(held)


def _read_part(part: Part) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        data = part.path.read_bytes()
    except OSError as error:
        raise disk_error(error, f"read {part.path}") from error
    if part_digest(data) != part.digest:
        raise UserError(
            f"{part.path} is not what was written there: remove its line from journal/shards.jsonl, "
            "and its shard is computed again"
        )
    # no threads: a part is small, and they cost more than they save
    table = parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    if table.num_rows != part.rows:
        raise UserError(
            f"{part.path} has {table.num_rows} rows, but {part.rows} were recorded: --fresh starts over"
        )
    return table


def _array(values: Sequence[Any], kind: Any) -> Any:
    """Lone surrogates, which models can emit and Parquet can not hold, become question marks."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        clean = [v.encode(errors="replace").decode() if isinstance(v, str) else v for v in values]
        return pa.array(clean, kind)
