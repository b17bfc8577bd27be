"""The journal of a job's shards: one line per attempt, of which the last one counts.

A shard is computed again where its part was deleted, and asked again for its samples that failed. Such an
attempt has a line and a part of its own, named after the shard's key and the number of the attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from llmctl.jobs.records import Shard, count_errors
from llmctl.jobs.results import Part, read_part_rows

SHARDS = "shards"  # the journal
PARTS = "parts"  # the folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardLine:
    """One line of the journal: an attempt at a shard."""

    name: str
    """The line's key, and the name of its part."""
    shard: Shard
    rows: int
    digest: str
    """Hash of the part's bytes."""
    tokens: int
    """New tokens that this attempt sampled."""
    prompt_tokens: int
    """Tokens that the model read in this attempt."""
    seconds: float
    engine: str
    errors: int | None
    """Samples that failed; None in journals from before they were counted."""

    def to_dict(self) -> dict[str, Any]:
        """The record of the journal, without its key."""
        names = ("rows", "digest", "tokens", "prompt_tokens", "seconds", "engine", "errors")
        return {**self.shard.place, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self:
        """Read a line of the journal."""
        place = ("model", "task", "protocol", "seed", "start", "stop")
        own = ("rows", "digest", "tokens", "prompt_tokens", "seconds", "engine")
        shard = Shard(**{name: line[name] for name in place}, key=shard_key(line["key"]))
        return cls(line["key"], shard, **{name: line[name] for name in own}, errors=line.get("errors"))

    def part(self, folder: Path) -> Part:
        """The attempt's part in a job's folder."""
        return Part(self.shard, part_path(folder, self.name), self.rows, self.digest)


def shard_key(name: str) -> str:
    """The key of the shard that a line of the journal is about."""
    return name.partition(".")[0]


def part_path(folder: Path, name: str) -> Path:
    """Where the part of an attempt lies in a job's folder."""
    return folder / PARTS / f"{name}.parquet"


def latest_lines(lines: Iterable[Mapping[str, Any]]) -> dict[str, ShardLine]:
    """The last attempt at every shard by the shard's key."""
    return {line.shard.key: line for line in map(ShardLine.from_dict, lines)}


@dataclass(frozen=True)
class Todo:
    """What a start of a job computes."""

    shards: Sequence[Shard]
    retried: Mapping[str, Part]
    """The parts of shards of which only the samples that failed are asked again, by the shard's key."""

    def prepare(self, shard: Shard) -> Shard:
        """Give a shard the rows of its earlier attempt; read only when the shard is handed to a worker."""
        part = self.retried.get(shard.key)
        return shard if part is None else replace(shard, earlier=read_part_rows(part))


def find_todo(folder: Path, plan: Iterable[Shard], lines: Mapping[str, ShardLine]) -> Todo:
    """The shards of a plan that are missing, whose part was deleted, or that have samples that failed."""
    shards, retried, lost = [], {}, 0
    for shard in plan:
        line = lines.get(shard.key)
        if line is None:
            shards.append(shard)
        elif not line.part(folder).path.is_file():
            lost += 1
            shards.append(shard)
        elif count_line_errors(folder, line):
            retried[shard.key] = line.part(folder)
            shards.append(shard)
    if lost:
        logger.warning(
            "%d finished shards have lost their files in %s: they are computed again", lost, folder / PARTS
        )
    return Todo(shards, retried)


def count_line_errors(folder: Path, line: ShardLine) -> int:
    """Samples of a finished shard that failed; counted in its part where the journal does not tell."""
    if line.errors is None:
        return count_errors(read_part_rows(line.part(folder)))
    return line.errors
