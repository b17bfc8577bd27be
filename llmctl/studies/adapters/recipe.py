"""What a comparison is told: arms, budget, data, training, seeds."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from llmctl.runs import Recipe
from llmctl.studies.adapters.arm_kinds import ablated_options, arm_names, reference_arm, solved_options
from llmctl.training.config import TrainSettings
from llmctl.training.recipe import Architecture, DataSettings, check_loss


def _check_arm(name: str) -> str:
    if name not in (known := arm_names()):
        listed = ", ".join(f"'{arm}'" for arm in known[:-1])
        raise PydanticCustomError("arm", "Input should be {known}", {"known": f"{listed} or '{known[-1]}'"})
    return name


ArmName = Annotated[str, AfterValidator(_check_arm)]


class LearningRateSearch(Recipe):
    """Each arm's own choice among learning rates, on training rows set apart for it."""

    rates: tuple[float, ...] = ()
    """Rates to try with every arm; none or one is no search."""
    rows: int = Field(default=32, ge=1)
    """Training rows that the choice is made on; the validation rows are never looked at."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of a trial; null trains as long as the comparison does."""


class Accuracy(Recipe):
    """Right answers of greedy replies to validation problems; needs `data.task`."""

    problems: int = Field(default=0, ge=0)
    """Validation problems; 0 measures no accuracy."""
    max_tokens: int = Field(default=256, ge=1)
    """New tokens of a reply at most."""


class Curve(Recipe):
    """Validation loss on the way, for the figure."""

    points: int = Field(default=0, ge=0)
    """Evaluations between start and end."""
    rows: int = Field(default=32, ge=1)
    """Validation rows of each; the first ones."""


class CompareRecipe(Recipe):
    """Adapters on one model, or architectures from scratch, at equal size."""

    kind: ClassVar[str] = "gin-compare"
    free_keys: ClassVar[tuple[str, ...]] = ("train.save",)

    model: str = "smollm2-135m"
    """Alias, folder or Hub name; from scratch, whose tokenizer is taken."""
    arms: tuple[ArmName, ...] = ("base", "lora", "sparse_gin", "self_loop")
    """What is compared; self_loop is Sparse-GIN in which no token hears another."""
    architectures: dict[str, Architecture] | None = None
    """Architectures by name, to be compared from scratch in place of the arms; the first is the reference."""
    budget: int | None = Field(default=None, ge=1)
    """Trained parameters of every arm; null is what Sparse-GIN of its default width, or the first
    architecture, takes. Rank, width, or the width of the MLPs is solved for it."""
    data: DataSettings = DataSettings()
    """Rows; the same for all."""
    train: TrainSettings = TrainSettings()
    """How all arms train; `lora` (but its rank) and `gin` (but its width) are options of theirs."""
    search: LearningRateSearch = LearningRateSearch()
    """Learning rates by arm; without it all arms take `train.learning_rate`."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """One training an arm with each: first weights, order of rows, dropout."""
    curve: Curve = Curve()
    """Validation loss on the way."""
    accuracy: Accuracy = Accuracy()
    """Accuracy on a task."""
    isolate: bool = True
    """Train in processes of their own, so that memory can be measured; false leaves it out on CPU."""

    @model_validator(mode="after")
    def _parts_agree(self) -> CompareRecipe:
        check_loss(self.data, self.train)
        for name, values in (("arms", self.arms), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} is {list(values)}, but distinct values, at least one, are needed")
        if self.data.validation_rows == 0:
            raise ValueError(
                "data.validation_rows is 0, but methods are compared on rows held out: set it to 1 or more"
            )
        if self.accuracy.problems and self.data.task is None:
            raise ValueError(
                f"accuracy.problems is {self.accuracy.problems}, but only a task has answers to "
                "check: give data.task, or set accuracy.problems=0"
            )
        return self

    @model_validator(mode="after")
    def _arms_decide(self) -> CompareRecipe:
        if self.architectures is not None and len(self.architectures) < 2:
            raise ValueError("architectures needs at least two to compare: add one")
        if taken := set(self.architectures or ()) & {"base", "differences", "comparison", "curves"}:
            raise ValueError(f"an architecture is called {taken.pop()}, which metrics.json uses: rename it")
        # What the arms set themselves must not be set here, where it would be passed over in silence.
        for key in ("adapter", "seed"):
            value, default = getattr(self.train, key), TrainSettings.model_fields[key].default
            if value != default:
                raise ValueError(
                    f"train.{key} is {value}, but the arms and seeds of a comparison decide it: drop it"
                )
        for key, option, value in solved_options(self.train):
            raise ValueError(f"train.{key}.{option} is {value}, but it is solved for the budget: set budget")
        for key, option, value, ablation in ablated_options(self.train):
            raise ValueError(
                f"train.{key}.{option} is {value}, which is what the arm {ablation.name} is for: remove it"
            )
        return self

    @property
    def reference(self) -> str:
        """The arm that others are compared with at equal size."""
        return next(iter(self.architectures)) if self.architectures else reference_arm()
