"""The recipe of a RISE run: model, task, collection, weights, training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.runs import Recipe
from llmctl.sampling.settings import EngineSettings, SamplingSettings
from llmctl.tasks.settings import TaskSettings
from llmctl.training.config import TrainSettings

Keep = Literal["all", "better", "best", "success"]
Source = Literal["self", "teacher", "reference"]


class RiseTaskSettings(TaskSettings):
    """Which problems to train and to evaluate on."""

    name: str = "sort"
    """Name of the task, as `llmctl tasks list` shows it."""
    test_path: Path | None = None
    """File of the test problems, where they are in a separate file; `path` is then the training file."""
    train_split: str = "train"
    """Split that problems are collected on."""
    test_split: str = "test"
    """Split that the model is evaluated on."""


class TeacherSettings(Recipe):
    """A sampler that gives improved responses: another local model, or a server."""

    model: str
    """Alias, folder or Hub name of the teacher, or the name that the server knows it by."""
    adapter: Path | None = None
    """PEFT adapter that is loaded on the teacher."""
    sampler: EngineSettings = EngineSettings()
    """Engine that runs the teacher."""
    samples: int = Field(default=1, ge=1)
    """Number of responses per state; the best one is kept."""


class CollectSettings(Recipe):
    """On-policy rollouts and improved responses."""

    problems: int = Field(default=256, ge=1)
    """Number of problems per iteration; each iteration draws other problems where the task has enough."""
    turns: int = Field(default=2, ge=1)
    """Maximum number of attempts per episode."""
    samples: int = Field(default=4, ge=1)
    """N, the number of responses that the model samples per state; the episode goes on with the first."""
    improve: tuple[Source, ...] = ("self",)
    """Sources of improved responses; the first source that has a right response is used."""
    teacher: TeacherSettings | None = None
    """The teacher; required where `improve` names teacher."""
    go_on: bool = False
    """Whether an episode goes on after a right answer, so that keeping one is trained as well. The message
    after every attempt must then be the same for right and wrong answers: set `sampling.retry`."""
    first_turn: bool = True
    """Whether to train on the first attempt as well, not only on later ones."""
    chunk: int = Field(default=64, ge=1)
    """Number of problems that are sampled together and saved as one journal line."""

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
    """How rewards become example weights (RISE, section 4; reward-weighted regression)."""

    scheme: Literal["exp", "advantage"] = "exp"
    """exp(r / tau), or exp((r - mean reward of the state's own samples) / tau)."""
    tau: float = Field(default=0.4, ge=0.01)
    """Temperature; with 0.4, as in the public RISE code, a right response weighs 12.2 times a wrong one."""
    keep: Keep = "success"
    """Responses to train on: all, better (than the turn before), best (so far), or success (right)."""
    balance: bool = False
    """Whether first answers, repairs (after a wrong answer) and keeps (after a right one) get the same total
    weight, however many rows there are of each."""


class WarmStart(Recipe):
    """Plain fine-tuning on reference solutions before the first collection (the paper's boost)."""

    problems: int = Field(default=256, ge=1)
    """Number of training problems; those without a reference solution are left out."""
    train: TrainSettings = TrainSettings()
    """Settings of this fine-tuning."""


class EvaluateSettings(Recipe):
    """The evaluation before and after training."""

    problems: int = Field(default=256, ge=1)
    """Number of test problems."""
    turns: int = Field(default=5, ge=1)
    """R, the number of turns of m1@tR and p1@tR."""
    parallel: int = Field(default=5, ge=1)
    """P, the number of parallel samples of mP@t1 and pass@P."""
    sampling: SamplingSettings | None = None
    """How to sample in the evaluation; null samples as in the collection."""
    each_iteration: bool = False
    """Whether to evaluate after every iteration, not only after the last."""
    chunk: int = Field(default=64, ge=1)
    """Number of problems sampled together and saved as one journal line."""
    seed: int = Field(default=1000, ge=0)
    """Seed for the order of the test problems and for sampling."""


class RiseRecipe(Recipe):
    """A whole RISE run: evaluate, then collect and train for each iteration, and evaluate again."""

    kind: ClassVar[str] = "rise"
    free_keys: ClassVar[tuple[str, ...]] = ("train.save.report_to", "launch")

    model: str = "smollm2-135m"
    """Alias, folder or Hub name of the model to train."""
    adapter: Path | None = None
    """PEFT adapter to start from; training continues it."""
    sampler: EngineSettings = EngineSettings()
    """Engine that samples from the model."""
    task: RiseTaskSettings = RiseTaskSettings()
    """The task that gives the problems."""
    sampling: SamplingSettings = SamplingSettings()
    """How attempts are sampled."""
    warm_start: WarmStart | None = None
    """Plain fine-tuning before the first iteration; null leaves it out."""
    iterations: int = Field(default=1, ge=0)
    """Number of rounds of collecting and training; each round starts from the model of the one before."""
    collect: CollectSettings = CollectSettings()
    """Rollouts and improved responses."""
    weights: WeightSettings = WeightSettings()
    """How rewards become example weights."""
    train: TrainSettings = TrainSettings()
    """Fine-tuning in every iteration."""
    launch: Path | None = None
    """Configuration file of accelerate, to train on several GPUs in separate processes."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Evaluation before and after training."""
    seed: int = Field(default=0, ge=0)
    """Seed that all other seeds of the run are derived from."""

    @model_validator(mode="after")
    def _retry_is_neutral(self) -> RiseRecipe:
        if self.collect.go_on and self.sampling.retry is None:
            raise ValueError(
                "collect.go_on is true and sampling.retry is null, but the task's feedback calls right "
                "answers wrong as well: set sampling.retry to a neutral message, e.g. Check your answer."
            )
        return self

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
        """The sampling settings of the evaluation."""
        return self.evaluate.sampling or self.sampling
