"""What a protocol is: how work is cut into shards, how a shard is run, and what its rows are summed up to.

A protocol of yours derives from `JobProtocol`, implements `open` and `metrics`, and is registered as an
entry point of the group "llmctl.protocols". The defaults are those of a protocol that samples from the
problems of the job's tasks, one sample per problem.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llmctl.jobs.records import ProblemCount, ResultRow, Shard

if TYPE_CHECKING:
    from llmctl.jobs.metrics import Floats
    from llmctl.jobs.result_groups import ResultGroup
    from llmctl.jobs.sections import ProtocolSpec
    from llmctl.jobs.spec import JobRecipe
    from llmctl.runs import Estimate
    from llmctl.sampling import Sampler
    from llmctl.tasks import Problem, Task

RunShard = Callable[["Sampler | None", Shard], Sequence[ResultRow]]
Bounds = tuple[int, int]  # start and stop of a shard


class WorkerContext(Protocol):
    """What a worker offers to a protocol."""

    recipe: JobRecipe

    def task(self, name: str) -> Task:
        """The task of that name in the job."""
        ...

    def problems(self, shard: Shard) -> Sequence[Problem]:
        """The problems of a shard."""
        ...


@dataclass(frozen=True)
class ShardCuts:
    """How the work of one model under one protocol and seed is cut."""

    bounds: Sequence[Bounds]
    """Start and stop of each shard."""
    digest: str
    """A hash of what is asked; part of the key of every shard."""


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric by which models are compared."""

    name: str
    values: str
    """Name of the numbers per problem that the metric is the mean of."""


@dataclass(frozen=True)
class GroupResults:
    """The results of one model on one task under one protocol."""

    model: str
    task: str
    protocol: str
    """Name of the protocol in the job."""
    spec: ProtocolSpec
    groups: Sequence[ResultGroup]
    """One for each seed, on the same problems."""
    path: Path
    """The results file, for metrics that need more than numbers per problem."""
    bootstrap_seed: int


class JobProtocol(ABC):
    """One way to ask a model. An instance holds no state and is shared by all jobs of a process."""

    description: ClassVar[str]
    """One line for reports."""
    reading: ClassVar[str]
    """A paragraph for reports: how the metrics are read."""
    task_name: ClassVar[str | None] = None
    """What results have under `task` where the protocol does not ask the problems of the job's tasks."""
    fields: ClassVar[frozenset[str]] = frozenset()
    """The settings among `curve`, `run`, `arm` and `options` of `ProtocolSpec` that this protocol reads."""
    unmatched_fields: ClassVar[frozenset[str]] = frozenset()
    """Settings in which two jobs that are compared may differ, because `check_comparable` looks deeper."""
    needs_sampler: ClassVar[bool] = True
    """Whether a shard is run on an open sampler; otherwise the protocol loads the model itself."""
    engine: ClassVar[str | None] = None
    """What the journal has under `engine`; None is the sampler's engine."""
    samples_text: ClassVar[bool] = True
    """Whether new tokens are sampled; otherwise models only read."""
    reads_answers: ClassVar[bool] = True
    """Whether a row without an answer is an unreadable text, which reports count."""
    equal_compute: ClassVar[str | None] = None
    """A protocol that costs as many samples for the same n, which this one is compared with."""
    hidden: ClassVar[frozenset[str]] = frozenset({"reward"})
    """Metrics that tables leave out; they stay in `summary.json`."""

    def check(self, spec: ProtocolSpec) -> None:  # noqa: B027  most protocols have nothing to add
        """Check the protocol's own settings.

        Raises:
            ValueError: A setting is missing or wrong.
        """

    def samples(self, spec: ProtocolSpec) -> int:
        """Samples per problem."""
        return 1

    def most_prompt_tokens(self, spec: ProtocolSpec, prompt_bytes: int, max_tokens: int) -> int:
        """Maximum number of tokens that are read for one problem, for `--max-cost`.

        Args:
            spec: The protocol's settings.
            prompt_bytes: Bytes of the conversation that poses the problem; no token is shorter than a byte.
            max_tokens: Maximum number of new tokens per sample.
        """
        return self.samples(spec) * prompt_bytes

    def seeds(self, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds of the job with which this protocol is repeated."""
        return seeds

    def count(self, recipe: JobRecipe, name: str) -> ProblemCount | None:
        """Count the problems of a protocol with a task of its own; they are pinned in the run's manifest.

        Args:
            recipe: The job's recipe.
            name: Name of the protocol in it.

        Returns:
            None where the protocol asks the job's tasks, or has nothing to pin.

        Raises:
            UserError: Something that the protocol reads is missing or wrong.
        """
        return None

    def shards(self, recipe: JobRecipe, name: str, found: ProblemCount | None) -> ShardCuts:
        """Cut the work of one model and seed.

        Args:
            recipe: The job's recipe.
            name: Name of the protocol in it.
            found: The problems of the task, or what `count` gave.
        """
        if found is None:
            raise ValueError(f"protocol {name} has a task of its own, but does not count its problems")
        return ShardCuts(even_bounds(found.problems, recipe.shard_size), found.digest)

    @abstractmethod
    def open(self, context: WorkerContext, name: str) -> RunShard:
        """A function that runs the shards of one protocol of a job; a worker calls this once.

        Args:
            context: What the worker offers.
            name: Name of the protocol in the job.

        Returns:
            A function from a sampler (None unless `needs_sampler`) and a shard to its rows, ordered by
            problem, sample and turn. It raises an LlmctlError where the model cannot do this. Where
            `shard.earlier` has rows, those that are not of status error may be taken over.
        """

    @abstractmethod
    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """The metrics of one model and task, in the order in which tables show them."""

    @abstractmethod
    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """The metric by which models are compared."""

    def problem_values(self, table: Any, samples: Floats) -> dict[str, Floats]:
        """Numbers per problem beyond those of every protocol (see `result_groups.read_result_groups`).

        Args:
            table: An Arrow table of whole problems.
            samples: (P,) rows of each problem.

        Returns:
            Arrays (P,) by name.
        """
        return {}

    def facts(self, recipe: JobRecipe, name: str) -> dict[str, Any]:
        """What stands beside the metrics of every model in `summary.json`, as plain values."""
        return {}

    def group_facts(self, results: GroupResults) -> dict[str, Any]:
        """What stands beside the metrics of one model and task, as plain values."""
        return {}

    def caption(self, name: str, entries: Sequence[Mapping[str, Any]]) -> str:
        """The caption of the table of metrics.

        Args:
            name: Name of the protocol in the job.
            entries: The `figures` entries of this protocol in a summary.
        """
        return problems_caption(name, entries)

    def check_comparable(  # noqa: B027  most protocols have nothing to add
        self, name: str, jobs: tuple[Path, Path], first: Mapping[str, Any], second: Mapping[str, Any]
    ) -> None:
        """Check that the results of two jobs can be compared.

        Args:
            name: Name of the protocol in both jobs.
            jobs: Their folders.
            first: An entry of the first job's summary under this protocol.
            second: An entry of the second job's.

        Raises:
            UserError: They are not about the same problems.
        """


def even_bounds(count: int, size: int) -> list[Bounds]:
    """Bounds of shards of `size` problems; the last one may be smaller."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def problems_caption(name: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """A caption that gives the number of problems and samples per row."""
    counts = {(entry["problems"], entry["samples"]) for entry in entries}
    said = " and ".join(f"{problems:,} problems, {samples:,} samples" for problems, samples in sorted(counts))
    return f"{name}: 95 % intervals over problems ({said} per row)."
