"""The recipe of an evaluation job: models, tasks, protocols and seeds; everything that results depend on.

Models, tasks and protocols are mappings from a name of your choice to settings, so that `--set
models.rise.adapter=DIR` reaches each of them. A list of names stands for defaults: `tasks: [sort]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from llmctl.jobs.sections import ModelSpec, Price, ProtocolSpec, TaskSpec, WorkerSettings
from llmctl.runs import Recipe
from llmctl.sampling.settings import SamplingSettings


class JobRecipe(Recipe):
    """The recipe of an evaluation job."""

    kind: ClassVar[str] = "eval"
    free_keys: ClassVar[tuple[str, ...]] = ("workers", "fail_on_error", "prices")

    models: dict[str, ModelSpec] = Field(min_length=1)
    """Models by the name that results have under `model`."""
    tasks: dict[str, TaskSpec] = {}
    """Tasks by the name that results have under `task`; protocols with a task of their own need none."""
    protocols: dict[str, ProtocolSpec] = Field(min_length=1)
    """Protocols by the name that results have under `protocol`."""
    sampling: SamplingSettings = SamplingSettings()
    """Temperature, top_p, max_tokens; window and retry of the sequential protocol."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of sampling; each is a repetition on the same problems. An msr_ranking samples nothing and uses
    only the first."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of problems per task, and of users per msr_ranking; null takes all."""
    shard_size: int = Field(default=64, ge=1)
    """Problems per shard. A job that is killed loses at most the shards in progress."""
    threads: int = Field(default=1, ge=1)
    """CPU threads per sampler, on every machine. Another number changes the order of floating-point sums, and
    with it a few samples. To use more cores, add workers."""
    workers: WorkerSettings = WorkerSettings()
    """Resources of a worker."""
    fail_on_error: float = Field(default=0, ge=0, le=1)
    """Share of samples that may end with an error of the engine; with more, the command exits with code 3.
    The same command asks for these samples alone again."""
    prices: dict[str, Price] = {}
    """Prices by model, e.g. `{gpt: {input: 0.15, output: 0.6}}`, in a currency of your choice per million
    tokens."""

    @model_validator(mode="before")
    @classmethod
    def _names_fill_in(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        filled = dict(content)
        for section, key in (("models", "model"), ("tasks", "name"), ("protocols", "protocol")):
            if section in filled:
                filled[section] = _entries(filled[section], key)
        return filled

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(
                f"seeds are {list(seeds)}, but each may appear once: a repeated seed repeats its samples"
            )
        return seeds

    @model_validator(mode="after")
    def _prices_belong(self) -> JobRecipe:
        for name in self.prices:
            if name not in self.models:
                raise ValueError(f"prices has {name!r}, but the models are {', '.join(self.models)}")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_prices(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an empty table of prices out of the recipe's file."""
        content: dict[str, Any] = plain(self)
        if not self.prices:
            content.pop("prices", None)
        return content

    @model_validator(mode="after")
    def _something_is_asked(self) -> JobRecipe:
        needy = [name for name, spec in self.protocols.items() if spec.definition.task_name is None]
        if needy and not self.tasks:
            raise ValueError(
                f"tasks are missing, but protocol {needy[0]} asks their problems: e.g. tasks: [sort]"
            )
        for spec in self.protocols.values():
            if (name := spec.definition.task_name) in self.tasks:
                raise ValueError(f"a task is named {name}, as are the {name} of a {spec.protocol}: rename it")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """Task and protocol of everything that each model is asked, in the order of the results."""
        own = {name: spec.definition.task_name for name, spec in self.protocols.items()}
        sampled = [name for name, task in own.items() if task is None]
        others = [(task, name) for name, task in own.items() if task is not None]
        return [(task, protocol) for task in self.tasks for protocol in sampled] + others

    def protocol_seeds(self, protocol: str) -> tuple[int, ...]:
        """The seeds with which a protocol is repeated."""
        return self.protocols[protocol].definition.seeds(self.seeds)

    def problem_limit(self, task: str) -> int | None:
        """Maximum number of problems of a task: the smaller of its own limit and the job's."""
        limits = [limit for limit in (self.tasks[task].limit, self.limit) if limit is not None]
        return min(limits, default=None)

    def protocol_sampling(self, protocol: str) -> SamplingSettings:
        """The sampling settings of a protocol."""
        own = self.protocols[protocol].temperature
        return self.sampling if own is None else self.sampling.model_copy(update={"temperature": own})


def _entries(given: Any, key: str) -> Any:
    """Entries by name, where `key` defaults to the name of the entry."""
    if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given):
        given = {name: None for name in given}
    if not isinstance(given, Mapping):
        return given
    return {
        name: {key: name, **(entry or {})} if entry is None or isinstance(entry, Mapping) else entry
        for name, entry in given.items()
    }
