"""The sections of a job's recipe: its models, tasks and protocols, and the resources of its workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from llmctl.errors import UserError
from llmctl.jobs.protocols.registry import PROTOCOLS
from llmctl.reach.curves.recipe import CurveSettings
from llmctl.runs import Recipe
from llmctl.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from llmctl.jobs.protocols.base import JobProtocol

_OWN_FIELDS = ("curve", "run", "arm", "options")  # settings that only some protocols read


class ModelSpec(Recipe):
    """A model, and the sampler that it is opened with."""

    model: str
    """Alias, folder or Hub name (engine server: the name on the server). Default: the name of the entry."""
    adapter: Path | None = None
    """Folder of a PEFT adapter. Entries that differ only in the adapter share one loaded base model."""
    dtype: str = "auto"
    """Data type of the weights: auto, float32, bfloat16, float16."""
    engine: str = "auto"
    """Engine of the sampler: auto, transformers, vllm or server."""
    options: dict[str, Any] = {}
    """Options of the engine: max_batch, tensor_parallel, base_url, ..."""

    @property
    def sampler_options(self) -> dict[str, Any]:
        """Options for `open_sampler`, with the dtype unless it is left to the engine."""
        return self.options if self.dtype == "auto" else {**self.options, "dtype": self.dtype}

    @property
    def base(self) -> str:
        """Identifies what must be loaded: the same for entries that differ only in the adapter."""
        from llmctl.runs.files import to_json

        return to_json([self.model, self.engine, self.dtype, dict(sorted(self.options.items()))])


class TaskSpec(TaskSettings):
    """A task, and which of its problems are asked."""

    name: str
    """Name as in `llmctl tasks list`. Default: the name of the entry."""
    split: str = "test"
    """Split of the task."""
    seed: int = Field(default=0, ge=0)
    """Seed for the order of the problems; 0 keeps the stored order."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of problems of this task; null leaves it to the job's limit."""


class ProtocolSpec(Recipe):
    """How a model is asked."""

    protocol: str
    """single, parallel, sequential, reach_curve, msr_ranking, or one of another package. Default: the name of
    the entry."""
    n: int = Field(default=5, ge=1)
    """Samples (parallel) or turns (sequential) per problem; single has one."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature in place of the job's; 0 is greedy."""
    curve: CurveSettings | None = None
    """States, targets, controls and search of a reach_curve, as in its own recipes. The seed is the job's."""
    run: Path | None = None
    """Folder of the msr run whose test users and candidate lists an msr_ranking takes."""
    arm: str | None = None
    """Arm of that run whose question and summaries are used; null is the first arm."""
    shards: int = Field(default=4, ge=1)
    """Parts into which the states of a reach_curve, or the users of an msr_ranking, are cut."""

    options: dict[str, Any] = {}
    """Settings of a protocol from another package."""

    @field_validator("protocol")
    @classmethod
    def _protocol_is_known(cls, name: str) -> str:
        try:
            PROTOCOLS[name]
        except UserError as error:
            raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _settings_belong(self) -> ProtocolSpec:
        self.definition.check(self)
        for name in _OWN_FIELDS:
            if getattr(self, name) not in (None, {}) and name not in self.definition.fields:
                verb = "are" if name == "options" else "is"
                raise ValueError(f"{name} {verb} given, but the protocol is {self.protocol}: drop it")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_options(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave empty options out, so that shards of jobs from before there were options keep their keys."""
        content: dict[str, Any] = plain(self)
        if not self.options:
            content.pop("options", None)
        return content

    @property
    def definition(self) -> JobProtocol:
        """The protocol itself, from the registry."""
        return PROTOCOLS[self.protocol]

    @property
    def samples(self) -> int:
        """Samples per problem."""
        return self.definition.samples(self)


class Price(Recipe):
    """What a model costs, in a currency of your choice per million tokens."""

    input: float = Field(default=0, ge=0)
    """Price of a million tokens that the model reads."""
    output: float = Field(default=0, ge=0)
    """Price of a million new tokens."""

    def cost(self, prompt_tokens: float, new_tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.input + new_tokens * self.output) / 1e6


class WorkerSettings(Recipe):
    """Resources of a worker of `--engine processes` or `--engine ray`, and how losses are handled."""

    cpus: float = Field(default=1, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per worker (Ray); must equal tensor_parallel of the sampler."""
    in_flight: int = Field(default=2, ge=1)
    """Shards handed to a worker at a time: the one that it computes, and the next ones."""
    retries: int = Field(default=3, ge=0)
    """How often a shard is computed again after its worker was lost."""
