"""Results as Parquet, one row per sample: encoding the part of a shard, and merging parts in plan order.

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
from llmctl.jobs.records import ResultRow, Shard
from llmctl.runs.files import disk_error
from llmctl.runs.parquet import new_parquet, open_parquet

RESULTS = "results.parquet"
GROUP_ROWS = 1 << 17  # maximum rows per row group, unless one shard has more

_TYPES = {
    "model": "string",  # name of the model in the job
    "adapter": "string",  # folder of the adapter; null for none
    "task": "string",
    "protocol": "string",
    "seed": "int64",
    "problem": "string",  # id within its task
    "sample": "int32",  # from 0
    "turn": "int32",  # from 1
    "text": "string",
    "reward": "float64",
    "tokens": "int32",  # new tokens of this sample
    "is_correct": "bool",
    "answer": "string",  # read from the text, for votes; null where none can be read
    "error": "string",  # why there is no text; null where there is one
    "status": "string",  # ok, error, refused, too_long or truncated
}
COLUMNS = tuple(_TYPES)


@dataclass(frozen=True)
class Part:
    """A finished shard: its file, and what the journal says about it."""

    shard: Shard
    path: Path
    rows: int
    digest: str  # hash of the file's bytes


def encode_part(shard: Shard, adapter: str | None, rows: Sequence[ResultRow]) -> bytes:
    """The rows of a shard as a Parquet file; equal rows give equal bytes.

    Args:
        shard: The shard.
        adapter: Folder of its model's adapter.
        rows: Rows ordered by problem, sample and turn.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = [row._replace(status="error") if row.error and row.status == "ok" else row for row in rows]
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
    """The hash of a part's bytes that the journal keeps."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def check_parts(plan: Sequence[Shard], parts: Sequence[Part]) -> list[Part]:
    """Bring parts into the order of the plan.

    Returns:
        One part per shard.

    Raises:
        UserError: A shard is missing, appears twice, or does not belong to this plan.
    """
    by_key: dict[str, Part] = {}
    for part in parts:
        if part.shard.key in by_key:
            raise UserError(
                f"shard {part.shard} appears twice, but results count each once: remove one of the two"
            )
        by_key[part.shard.key] = part
    planned = {shard.key for shard in plan}
    if strange := [part for key, part in by_key.items() if key not in planned]:
        raise UserError(
            f"shard {strange[0].shard} does not belong to this job's plan: merge parts of one job only"
        )
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
        parts: Finished parts, in any order.
        path: The file to write.

    Returns:
        Number of rows.

    Raises:
        UserError: See `check_parts`; or a part differs from what the journal says; or the disk refused.
    """
    return write_results(path, _tables(check_parts(plan, parts)))


def write_results(path: Path, tables: Iterable[Any]) -> int:
    """Write Arrow tables as one file, each a row group; whole or not at all.

    Returns:
        Number of rows.

    Raises:
        UserError: The disk refused; an old file is left as it was.
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
        UserError: The file is missing, cannot be read, or lacks a column.
    """
    with open_parquet(path, "run the job again") as file:
        names = file.schema_arrow.names
        if missing := [name for name in columns if name not in names and name != "status"]:
            raise UserError(f"{path} has no column {missing[0]!r}: it is not the result of a job")
        wanted = [*columns, "error"] if "status" in columns and "status" not in names else list(columns)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[name for name in wanted if name in names])
            yield with_status(table).select(list(columns)) if "status" in columns else table


def with_status(table: Any) -> Any:
    """A table with the column `status`. Results from before there was one tell only errors."""
    import pyarrow as pa

    if "status" in table.column_names:
        return table
    failed = table["error"].is_valid().to_pylist()
    return table.append_column("status", pa.array(["error" if f else "ok" for f in failed], pa.string()))


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
    """Tables of whole shards, each of one model, task, protocol and seed, and of up to `GROUP_ROWS` rows."""
    import pyarrow as pa

    held: list[Any] = []
    group: Any = None
    for part in parts:
        table = _read_part(part)
        is_full = sum(t.num_rows for t in held) + table.num_rows > GROUP_ROWS
        if held and (part.shard.group != group or is_full):
            yield pa.concat_tables(held)
            held = []
        held.append(table)
        group = part.shard.group
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
            f"{part.path} is not what was written: remove its line from journal/shards.jsonl, "
            "and its shard is computed again"
        )
    # No threads: a part is small, and starting them costs more than it saves.
    table = parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    if table.num_rows != part.rows:
        raise UserError(
            f"{part.path} has {table.num_rows} rows, but {part.rows} were recorded: --fresh starts over"
        )
    return with_status(table)


def read_part_rows(part: Part) -> tuple[ResultRow, ...]:
    """The rows of a finished shard.

    Raises:
        UserError: The part differs from what the journal says, or cannot be read.
    """
    table = _read_part(part).select(list(ResultRow._fields))
    return tuple(ResultRow(**row) for row in table.to_pylist())


def _array(values: Sequence[Any], kind: Any) -> Any:
    """An Arrow array. Lone surrogates, which models emit and Parquet cannot hold, become question marks."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        clean = [v.encode(errors="replace").decode() if isinstance(v, str) else v for v in values]
        return pa.array(clean, kind)
