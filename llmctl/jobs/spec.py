"""What an evaluation job is told: models, tasks, protocols, seeds; everything its results depend on.

Models, tasks and protocols are mappings from a name of yours to settings, so that `--set
models.rise.adapter=DIR` reaches each of them. A list of names is short for the defaults: `tasks: [sort]`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from llmctl.reach.curves.recipe import CurveSettings
from llmctl.runs import Recipe
from llmctl.sampling.settings import SamplingSettings
from llmctl.tasks.settings import TaskSettings

PROTOCOLS = {
    "single": "one sample a problem",
    "parallel": "n samples a problem, and a vote",
    "sequential": "R turns a problem without an oracle, as RISE is evaluated",
    "reach_curve": "a k-epsilon curve: which outputs controls of at most k tokens force",
    "msr_ranking": "the frozen candidates of an msr run, ranked by P(yes)",
}
CURVE_TASK = "states"  # what results of a curve have under `task`: its states are no task's problems
RANKING_TASK = "candidates"  # and those of a ranking, whose problems are users
_OWN_TASKS = {"reach_curve": CURVE_TASK, "msr_ranking": RANKING_TASK}


class ModelSpec(Recipe):
    """A model, and the sampler that opens it."""

    model: str
    """Alias, folder or Hub name (for engine server, its name there); the entry's own name where left out."""
    adapter: Path | None = None
    """A PEFT adapter on it; entries that differ in nothing else share one loaded base."""
    dtype: str = "auto"
    """Of the weights: auto, float32, bfloat16, float16."""
    engine: str = "auto"
    """Sampler: auto, transformers, vllm or server."""
    options: dict[str, Any] = {}
    """Options of that sampler: max_batch, tensor_parallel, base_url, ..."""

    @property
    def sampler_options(self) -> dict[str, Any]:
        """Options for `open_sampler`, the dtype among them where it is not left to the engine."""
        return self.options if self.dtype == "auto" else {**self.options, "dtype": self.dtype}

    @property
    def base(self) -> str:
        """What must be loaded: the same for entries that differ in the adapter alone."""
        from llmctl.runs.files import to_json

        return to_json([self.model, self.engine, self.dtype, dict(sorted(self.options.items()))])


class TaskSpec(TaskSettings):
    """Which problems."""

    name: str
    """As `llmctl tasks list` shows them; the entry's own name where left out."""
    split: str = "test"
    """Split of the task."""
    seed: int = Field(default=0, ge=0)
    """Order of the problems; 0 is the stored one."""
    limit: int | None = Field(default=None, ge=1)
    """Problems of this task at most; null leaves it to the job's limit."""


class ProtocolSpec(Recipe):
    """How a model is asked."""

    protocol: str
    """single, parallel, sequential, reach_curve or msr_ranking; the entry's own name where left out."""
    n: int = Field(default=5, ge=1)
    """Samples a problem (parallel), or turns (sequential); single has one."""
    temperature: float | None = Field(default=None, ge=0)
    """In place of the job's; 0 is greedy."""
    curve: CurveSettings | None = None
    """States, targets, controls and search of a reach_curve, as in its recipes. Its seed is the job's."""
    run: Path | None = None
    """Folder of the msr run whose test users and candidate lists an msr_ranking takes."""
    arm: str | None = None
    """Arm of that run whose question and summaries are asked with; null is its first."""
    shards: int = Field(default=4, ge=1)
    """Parts of a reach_curve, or of the users of an msr_ranking."""

    @field_validator("protocol")
    @classmethod
    def _protocol_is_known(cls, name: str) -> str:
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"no protocol {name!r}; the nearest is {near!r}: known are {', '.join(PROTOCOLS)}"
            )
        return name

    @model_validator(mode="after")
    def _curve_belongs(self) -> ProtocolSpec:
        if self.curve is not None and not self.is_curve:
            raise ValueError(f"curve is given, but the protocol is {self.protocol}: drop it")
        return self

    @model_validator(mode="after")
    def _run_belongs(self) -> ProtocolSpec:
        if self.is_ranking and self.run is None:
            raise ValueError("run is missing: an msr_ranking needs the folder of an msr run")
        for name, given in (("run", self.run), ("arm", self.arm)):
            if given is not None and not self.is_ranking:
                raise ValueError(f"{name} is given, but the protocol is {self.protocol}: drop it")
        return self

    @property
    def is_curve(self) -> bool:
        """Whether it searches for controls."""
        return self.protocol == "reach_curve"

    @property
    def is_ranking(self) -> bool:
        """Whether it ranks candidates."""
        return self.protocol == "msr_ranking"

    @property
    def own_task(self) -> str | None:
        """What its results have under `task` where it asks for no task's problems, and samples nothing."""
        return _OWN_TASKS.get(self.protocol)

    @property
    def samples(self) -> int:
        """Samples a problem; of a curve, parts count, of a ranking, users."""
        return self.n if self.protocol in ("parallel", "sequential") else 1


class WorkerSettings(Recipe):
    """What a worker of `--engine processes` or `--engine ray` takes, and how often one may be lost."""

    cpus: float = Field(default=1, gt=0)
    """Cores of a worker."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of a worker (Ray); as many as its sampler's tensor_parallel."""
    in_flight: int = Field(default=2, ge=1)
    """Shards handed to a worker at a time: one that it works on, and the next ones."""
    retries: int = Field(default=3, ge=0)
    """Times that a shard is taken up again after the loss of its worker."""


class JobRecipe(Recipe):
    """A whole evaluation job."""

    kind: ClassVar[str] = "eval"
    free_keys: ClassVar[tuple[str, ...]] = ("workers",)

    models: dict[str, ModelSpec] = Field(min_length=1)
    """By the name that results have under `model`."""
    tasks: dict[str, TaskSpec] = {}
    """By the name that results have under `task`; curves and rankings need none."""
    protocols: dict[str, ProtocolSpec] = Field(min_length=1)
    """By the name that results have under `protocol`."""
    sampling: SamplingSettings = SamplingSettings()
    """Temperature, top_p, max_tokens; window and retry of the sequential protocol."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Of sampling; each is a repetition on the same problems. A ranking samples nothing: it has the first."""
    limit: int | None = Field(default=None, ge=1)
    """Problems of each task, and users of each ranking, at most; null takes all."""
    shard_size: int = Field(default=64, ge=1)
    """Problems that are asked in one batch; also what a kill can lose."""
    threads: int = Field(default=1, ge=1)
    """Threads of each sampler on a CPU, wherever it runs: with another number sums are rounded in another
    order, and now and then a sample comes out differently. Workers are the better use of more cores."""
    workers: WorkerSettings = WorkerSettings()
    """What a worker takes."""

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
                f"seeds are {list(seeds)}, but each may come once: a repeated seed repeats its samples"
            )
        return seeds

    @model_validator(mode="after")
    def _something_is_asked(self) -> JobRecipe:
        if not self.tasks and not all(spec.own_task for spec in self.protocols.values()):
            raise ValueError(
                "tasks are missing, and only a reach_curve or an msr_ranking needs none: e.g. tasks: [sort]"
            )
        for spec in self.protocols.values():
            if spec.own_task in self.tasks:
                raise ValueError(
                    f"a task is named {spec.own_task}, as are the {spec.own_task} of a {spec.protocol}: "
                    "rename it"
                )
        return self

    def asked(self) -> list[tuple[str, str]]:
        """Task and protocol of everything that each model is asked, in the order of the results."""
        sampled = [name for name, spec in self.protocols.items() if not spec.own_task]
        others = [(spec.own_task, name) for name, spec in self.protocols.items() if spec.own_task]
        return [(task, protocol) for task in self.tasks for protocol in sampled] + others

    @property
    def rankings(self) -> dict[str, ProtocolSpec]:
        """The protocols that rank candidates."""
        return {name: spec for name, spec in self.protocols.items() if spec.is_ranking}

    def protocol_seeds(self, protocol: str) -> tuple[int, ...]:
        """The seeds that a protocol is repeated with."""
        return self.seeds[:1] if self.protocols[protocol].is_ranking else self.seeds

    def problem_limit(self, task: str) -> int | None:
        """Problems of a task at most: the smaller of its own limit and the job's."""
        limits = [limit for limit in (self.tasks[task].limit, self.limit) if limit is not None]
        return min(limits, default=None)

    def protocol_sampling(self, protocol: str) -> SamplingSettings:
        """How a protocol samples."""
        own = self.protocols[protocol].temperature
        return self.sampling if own is None else self.sampling.model_copy(update={"temperature": own})


def _entries(given: Any, key: str) -> Any:
    """Entries by name, each with its own name under `key` where that is left out."""
    if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given):
        given = {name: None for name in given}
    if not isinstance(given, Mapping):
        return given
    return {
        name: {key: name, **(entry or {})} if entry is None or isinstance(entry, Mapping) else entry
        for name, entry in given.items()
    }
