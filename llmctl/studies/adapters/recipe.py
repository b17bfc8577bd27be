"""The recipe of a comparison: arms, budget, data, training, seeds."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from llmctl.runs import Recipe
from llmctl.studies.adapters.arm_kinds import ablated_options, arm_names, reference_arm, solved_options
from llmctl.training.config import TrainSettings
from llmctl.training.recipe import Architecture, TrainDataSettings, check_loss


def _check_arm(name: str) -> str:
    if name not in (known := arm_names()):
        listed = ", ".join(f"'{arm}'" for arm in known[:-1])
        raise PydanticCustomError("arm", "Input should be {known}", {"known": f"{listed} or '{known[-1]}'"})
    return name


ArmName = Annotated[str, AfterValidator(_check_arm)]


class LearningRateSearch(Recipe):
    """The choice of a learning rate per arm, on training rows that are held out for it."""

    rates: tuple[float, ...] = ()
    """Learning rates to try with every arm; with none or one there is no search."""
    rows: int = Field(default=32, ge=1)
    """Number of training rows that are held out for the choice; the validation rows are not used."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps per trial; null trains as long as the comparison."""


class Accuracy(Recipe):
    """Right answers of greedy replies to validation problems; needs `data.task`."""

    problems: int = Field(default=0, ge=0)
    """Number of validation problems; 0 measures no accuracy."""
    max_tokens: int = Field(default=256, ge=1)
    """Maximum number of new tokens per reply."""


class Curve(Recipe):
    """Validation losses during training, for the plot."""

    points: int = Field(default=0, ge=0)
    """Number of evaluations between start and end."""
    rows: int = Field(default=32, ge=1)
    """Number of validation rows per evaluation; the first ones are used."""


class AdapterCompareRecipe(Recipe):
    """Adapters on one model, or architectures from scratch, at equal size."""

    kind: ClassVar[str] = "gin-compare"
    free_keys: ClassVar[tuple[str, ...]] = ("train.save",)

    model: str = "smollm2-135m"
    """Alias, folder or Hub name; for training from scratch, the model whose tokenizer is used."""
    arms: tuple[ArmName, ...] = ("base", "lora", "sparse_gin", "self_loop")
    """What is compared; self_loop is Sparse-GIN without messages between tokens."""
    architectures: dict[str, Architecture] | None = None
    """Architectures by name, to be compared from scratch in place of the arms; the first is the reference."""
    budget: int | None = Field(default=None, ge=1)
    """Trained parameters of every arm; null is what Sparse-GIN of its default width, or the first
    architecture, takes. Rank, width, or the width of the MLPs is solved for it."""
    data: TrainDataSettings = TrainDataSettings()
    """Training and validation rows, the same for all arms."""
    train: TrainSettings = TrainSettings()
    """How all arms train; `lora` (but its rank) and `gin` (but its width) are options of theirs."""
    search: LearningRateSearch = LearningRateSearch()
    """Learning rates by arm; without it all arms take `train.learning_rate`."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """One training per arm and seed. The seed decides initial weights, order of rows and dropout."""
    curve: Curve = Curve()
    """Validation losses during training."""
    accuracy: Accuracy = Accuracy()
    """Accuracy on a task."""
    isolate: bool = True
    """Train each unit in its own process, which measures its memory; false measures no memory on CPU."""

    @model_validator(mode="after")
    def _parts_agree(self) -> AdapterCompareRecipe:
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
    def _arms_decide(self) -> AdapterCompareRecipe:
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
