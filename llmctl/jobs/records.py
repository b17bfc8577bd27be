"""The records that the phases of a job hand to one another: shards, rows of results, outcomes of a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmctl.sampling.types import SampleStatus

GroupKey = tuple[str, str, str, int]  # model, task, protocol, seed


@dataclass(frozen=True)
class Shard:
    """One batch of work: problems [start, stop) of a task for one model under one protocol and seed.

    A protocol with a task of its own says what it counts in place of problems (users, parts of a curve).
    """

    model: str
    task: str
    protocol: str
    seed: int
    start: int
    stop: int
    key: str = ""
    """A hash of everything that the shard's results depend on."""
    earlier: tuple[ResultRow, ...] = field(default=(), repr=False, compare=False)
    """Rows of an earlier attempt, where only its samples of status error are asked again."""

    @property
    def group(self) -> GroupKey:
        """Model, task, protocol and seed."""
        return self.model, self.task, self.protocol, self.seed

    def __str__(self) -> str:
        return f"{self.model}/{self.task}/{self.protocol}/seed {self.seed}/{self.start}-{self.stop}"

    @property
    def place(self) -> dict[str, Any]:
        """Everything but the key and the rows, for the journal and for the key itself."""
        names = ("model", "task", "protocol", "seed", "start", "stop")
        return {name: getattr(self, name) for name in names}


class ProblemCount(NamedTuple):
    """How many problems there are, and a hash of what is asked."""

    problems: int
    digest: str


class ResultRow(NamedTuple):
    """One row of `results.parquet`: the columns from `problem` on. The shard gives the columns before it."""

    problem: str
    """Id of the problem within its task."""
    sample: int
    """Index of the sample, from 0."""
    turn: int
    """Number of the turn, from 1."""
    text: str
    """What the model said."""
    reward: float
    """Reward of the text."""
    tokens: int
    """New tokens of this sample."""
    is_correct: bool
    """Whether the answer is right."""
    answer: str | None
    """The answer that was read from the text, for votes; None where none can be read."""
    error: str | None
    """Why there is no text; None where there is one."""
    status: SampleStatus = "ok"
    """What became of the sample. One with an error and no other status counts as status error."""


def count_errors(rows: Sequence[ResultRow]) -> int:
    """Samples that failed, and for which another try may do."""
    return sum(row.status == "error" or (row.error is not None and row.status == "ok") for row in rows)


@dataclass(frozen=True)
class Done:
    """A shard that was computed."""

    shard: Shard
    data: bytes | Callable[[], bytes]
    """A Parquet file, or a function that makes it, for a recorder in the same process."""
    rows: int
    """Rows of the file."""
    tokens: int
    """New tokens that were sampled, without those of an earlier attempt."""
    prompt_tokens: int
    """Tokens that the model read."""
    seconds: float
    """Time of the computation, without loading the model."""
    engine: str
    """The sampler's engine, or the protocol's own word where nothing is sampled ("search", "scoring")."""
    errors: int = 0
    """Rows whose sample failed; the next start asks for these alone again."""

    def encoded(self) -> bytes:
        """The Parquet file."""
        return self.data if isinstance(self.data, bytes) else self.data()


@dataclass(frozen=True)
class Failed:
    """A shard that cannot be computed. The other shards of its model are not tried."""

    shard: Shard
    reason: str
    """One line for the user."""


Outcome = Done | Failed
