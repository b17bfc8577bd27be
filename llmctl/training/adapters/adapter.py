"""The record that describes one adapter. It imports neither torch nor PEFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmctl.errors import UserError

if TYPE_CHECKING:
    from llmctl.training.config import TrainSettings

OPTIONS_KEY = "adapter_options"


@dataclass(frozen=True)
class BaseWeights:
    """How the weights of the base model are loaded for training."""

    quantization: Literal["none", "nf4", "int8"] = "none"
    """Quantization of the weights, by bitsandbytes."""
    dtype: str | None = None
    """Data type of the weights; None is that of the computation."""


@dataclass(frozen=True)
class SizedAdapter:
    """An adapter whose size was chosen for a budget of trained parameters."""

    size: str
    """The size in words: "rank 8"."""
    parameters: int
    """Trained parameters at this size."""
    settings: TrainSettings
    """The training settings with the size filled in."""


@dataclass(frozen=True)
class Ablation:
    """A variant of an adapter with one part removed, for comparisons."""

    name: str
    """Name of the variant's arm in a comparison."""
    title: str
    """Name in reports."""
    options: Mapping[str, Any]
    """Options of the adapter that make the variant."""


@dataclass(frozen=True)
class AdapterMethod:
    """What a training run trains: all weights, or a PEFT adapter of one method."""

    name: str
    """Name in recipes."""
    title: str
    """Name in reports."""
    description: str
    """One sentence for a person who chooses among adapters."""
    settings: Callable[..., Any]
    """Class of the options; it takes keywords and raises TypeError or ValueError for what does not fit."""
    make_config: Callable[[Any, Any], Any] | None
    """Options and base model to a PEFT configuration; None trains every weight and adds no adapter."""
    options_key: str = OPTIONS_KEY
    """Key of `TrainSettings` that holds the options."""
    base: BaseWeights = BaseWeights()
    """How the base model is loaded."""
    peft_type: str | None = None
    """PEFT's name of the method ("LORA"); a saved adapter of another method is refused. None accepts all."""
    has_float32_weights: bool = False
    """Whether to undo the rounding of the adapter's weights to bfloat16 that TRL applies."""
    match_size: Callable[[Any, TrainSettings, int], SizedAdapter] | None = None
    """Configuration of the base model, training settings and budget to the size nearest to the budget; None
    keeps the adapter out of comparisons at equal size."""
    default_budget: Callable[[Any, TrainSettings], int] | None = None
    """Trained parameters at the adapter's own default size, for comparisons without a budget."""
    size_option: str | None = None
    """The option that `match_size` chooses, which a comparison must not set."""
    is_reference: bool = False
    """Whether comparisons at equal size measure other adapters against this one."""
    ablations: tuple[Ablation, ...] = field(default=())
    """Variants for comparisons."""

    @property
    def is_peft(self) -> bool:
        """Whether training makes a PEFT adapter, and not a whole model."""
        return self.make_config is not None

    def options(self, train: TrainSettings) -> Any:
        """The adapter's options in training settings, checked.

        Raises:
            UserError: An option is unknown or out of its range.
        """
        given = getattr(train, self.options_key)
        if not isinstance(given, Mapping):
            return given  # pydantic has checked it
        try:
            return self.settings(**given)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.options_key} has an option that {self.title} does not know or accept "
                f"({_first_line(error)}): see the options of adapter {self.name}"
            ) from error

    def config(self, train: TrainSettings, model: Any) -> Any | None:
        """The PEFT configuration of a new adapter on a model; None where every weight is trained.

        Raises:
            UserError: As `options`.
        """
        return None if self.make_config is None else self.make_config(self.options(train), model)

    def check_start(self, init_adapter: str | Path | None) -> None:
        """Refuse to start from a saved adapter where every weight is trained.

        Raises:
            UserError: This adapter cannot go on from a saved one.
        """
        if init_adapter is not None and not self.is_peft:
            raise UserError(
                f"init_adapter is {init_adapter}, but adapter is {self.name}, which trains no adapter: give "
                "the previous model's folder as the model, or set adapter to lora"
            )

    def check_saved(self, found: str, folder: str | Path) -> None:
        """Refuse a saved adapter of another PEFT method.

        Args:
            found: PEFT's name of the saved adapter's method.
            folder: Its folder, for the message.

        Raises:
            UserError: The two methods differ.
        """
        if self.peft_type is not None and found != self.peft_type:
            raise UserError(
                f"init_adapter {folder} is a {found} adapter, but adapter is {self.name}: make the two agree"
            )


@dataclass(frozen=True)
class NoOptions:
    """The options of an adapter that has none."""


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
