"""What a RISE run is told: model, task, collection, weights, training, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.runs import Recipe
from llmctl.training.config import TrainSettings

Keep = Literal["all", "better", "best", "success"]
Source = Literal["self", "teacher", "reference"]


class EngineSettings(Recipe):
    """Which engine samples."""

    engine: str = "auto"
    """auto, transformers, vllm or server."""
    options: dict[str, Any] = {}
    """Options of that engine's sampler: max_batch, tensor_parallel, base_url, ..."""


class TaskSettings(Recipe):
    """Which problems."""

    name: str = "sort"
    """As `llmctl tasks list` shows them."""
    path: Path | None = None
    """File or folder of tasks that are read from files; the training file where `test_path` is given."""
    test_path: Path | None = None
    """File of the test problems, where they lie apart."""
    options: dict[str, Any] = {}
    """Options of the task."""
    train_split: str = "train"
    """Split that problems are collected on."""
    test_split: str = "test"
    """Split that is evaluated on."""


class SamplingSettings(Recipe):
    """How the policy samples, in collection and evaluation alike."""

    temperature: float = Field(default=0.7, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass kept."""
    max_tokens: int = Field(default=256, ge=1)
    """New tokens of an attempt at most."""
    window: int | None = Field(default=None, ge=1)
    """Earlier attempts kept in the prompt (the sliding window); null keeps all."""
    retry: str | None = None
    """Said after every attempt; null says what the task's feedback says of a wrong one."""


class TeacherSettings(Recipe):
    """A sampler that gives improved responses: another local model, or a server."""

    model: str
    """Alias, folder, Hub name, or the server's name of the model."""
    adapter: Path | None = None
    """An adapter on it."""
    sampler: EngineSettings = EngineSettings()
    """Its engine."""
    samples: int = Field(default=1, ge=1)
    """Responses a state; the best is taken."""


class CollectSettings(Recipe):
    """On-policy rollouts and improved responses."""

    problems: int = Field(default=256, ge=1)
    """Problems an iteration; each iteration draws others where the task has them."""
    turns: int = Field(default=2, ge=1)
    """Attempts of an episode at most."""
    samples: int = Field(default=4, ge=1)
    """N: responses of the model itself at every state; the first goes on with the episode."""
    improve: tuple[Source, ...] = ("self",)
    """Where an improved response comes from: the first of these that has a right one."""
    teacher: TeacherSettings | None = None
    """Needed where `improve` names teacher."""
    first_turn: bool = True
    """Whether the state before any attempt is trained on as well."""
    chunk: int = Field(default=64, ge=1)
    """Problems in lockstep; one journal line, so this much work a kill can lose."""

    @model_validator(mode="after")
    def _teacher_is_there(self) -> CollectSettings:
        if ("teacher" in self.improve) != (self.teacher is not None):
            raise ValueError(
                "collect.improve and collect.teacher must name a teacher both, or neither: "
                "give collect.teacher.model, or change collect.improve"
            )
        if not self.improve:
            raise ValueError(
                "collect.improve is empty, but at least one of self, teacher, reference is needed"
            )
        return self


class WeightSettings(Recipe):
    """From rewards to example weights (RISE, section 4; reward-weighted regression)."""

    scheme: Literal["exp", "advantage"] = "exp"
    """exp(r / tau), or exp((r - mean reward of the state's own samples) / tau)."""
    tau: float = Field(default=0.4, ge=0.01)
    """Temperature; 0.4 in the public RISE code, where a right response weighs 12.2 times a wrong one."""
    keep: Keep = "success"
    """Responses to train on: all; better than the turn before; best so far; or only right ones."""


class WarmStart(Recipe):
    """Plain fine-tuning on reference solutions before the first collection (the paper's boost)."""

    problems: int = Field(default=256, ge=1)
    """Training problems with a reference solution."""
    train: TrainSettings = TrainSettings()
    """How."""


class EvaluateSettings(Recipe):
    """The evaluation before and after."""

    problems: int = Field(default=256, ge=1)
    """Test problems."""
    turns: int = Field(default=5, ge=1)
    """Turns of m1@tR and p1@tR."""
    parallel: int = Field(default=5, ge=1)
    """Samples of mP@t1, and of pass@k."""
    sampling: SamplingSettings | None = None
    """Sampling, where it differs from collection."""
    each_iteration: bool = False
    """Evaluate after every iteration, not only after the last."""
    chunk: int = Field(default=64, ge=1)
    """Problems in lockstep; one journal line."""
    seed: int = Field(default=1000, ge=0)
    """Of the test problems' order and of sampling."""


class RiseRecipe(Recipe):
    """A whole RISE run."""

    kind: ClassVar[str] = "rise"
    free_keys: ClassVar[tuple[str, ...]] = ("train.save.report_to", "launch")

    model: str = "smollm2-135m"
    """Alias, folder or Hub name of the model to teach."""
    adapter: Path | None = None
    """An adapter to begin with; training goes on from it."""
    sampler: EngineSettings = EngineSettings()
    """The engine that samples from it."""
    task: TaskSettings = TaskSettings()
    """Which problems."""
    sampling: SamplingSettings = SamplingSettings()
    """How attempts are sampled."""
    warm_start: WarmStart | None = None
    """Plain fine-tuning first; null for none."""
    iterations: int = Field(default=1, ge=0)
    """Rounds of collect and train, each from the model of the last."""
    collect: CollectSettings = CollectSettings()
    """Rollouts and improved responses."""
    weights: WeightSettings = WeightSettings()
    """Rewards to weights."""
    train: TrainSettings = TrainSettings()
    """Fine-tuning of every iteration."""
    launch: Path | None = None
    """An accelerate configuration: train in processes of their own on several GPUs."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Before and after."""
    seed: int = Field(default=0, ge=0)
    """Root of all randomness of the run."""

    @model_validator(mode="after")
    def _warm_start_is_used(self) -> RiseRecipe:
        if self.warm_start is not None and self.iterations == 0:
            raise ValueError(
                "warm_start is given and iterations is 0, but it prepares the first iteration: "
                "set iterations to 1 or more, or drop warm_start"
            )
        return self

    @property
    def evaluation_sampling(self) -> SamplingSettings:
        """How the evaluation samples."""
        return self.evaluate.sampling or self.sampling
