"""The result of one unit of a comparison, as the journal holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmctl.training.validation import RowLosses


@dataclass(frozen=True)
class LossSums:
    """Losses of a trained model row by row."""

    nll: tuple[float, ...]
    """Negative log-likelihood of each row in nats, summed over its label tokens."""
    tokens: tuple[int, ...]
    """Number of label tokens of each row."""

    @classmethod
    def of(cls, losses: RowLosses) -> LossSums:
        """The same losses without torch."""
        return cls(losses.nll, losses.tokens)

    def first(self, rows: int) -> LossSums:
        """The losses of the first rows."""
        return LossSums(self.nll[:rows], self.tokens[:rows])


@dataclass(frozen=True)
class TaskAccuracy:
    """Accuracy of greedy replies to validation problems."""

    right: tuple[bool, ...]
    """Whether each reply was right."""
    value: float
    """The share of right replies."""


@dataclass(frozen=True)
class TrainingRecord:
    """What the training of a unit recorded."""

    losses: tuple[float, ...]
    """Training loss of each step, in nats per label token."""
    steps: int
    """Optimizer steps."""
    rows: int
    """Training rows."""
    dropped_rows: int
    """Rows longer than max_length, which were left out."""
    tokens: int
    """Tokens that went through the model, without padding."""
    seconds: float
    """Duration of the training loop."""
    curve: tuple[tuple[int, float], ...]
    """(step, validation loss) during training."""


@dataclass(frozen=True)
class UnitResult:
    """The measurements of one arm with one seed."""

    validation: LossSums
    """Losses on the validation rows."""
    fit: LossSums
    """Losses on the first training rows, after training."""
    validation_loss: float
    """Nats per label token."""
    train_loss: float
    """Nats per label token."""
    accuracy: TaskAccuracy | None
    """None where no accuracy is measured."""
    trainable_parameters: int
    """0 for a model that is not trained."""
    seconds_per_step: float | None
    """Median over steps; None for a model that is not trained."""
    peak_memory: float | None
    """MiB; None where it cannot be measured."""
    training: TrainingRecord | None
    """None for a model that is not trained."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a line of the journal."""
        fields = asdict(self)
        return fields | (fields.pop("training") or {})

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> UnitResult:
        """Read a line of the journal."""
        accuracy = line["accuracy"]
        return cls(
            validation=_read_losses(line["validation"]),
            fit=_read_losses(line["fit"]),
            validation_loss=line["validation_loss"],
            train_loss=line["train_loss"],
            accuracy=None if accuracy is None else TaskAccuracy(tuple(accuracy["right"]), accuracy["value"]),
            trainable_parameters=line["trainable_parameters"],
            seconds_per_step=line["seconds_per_step"],
            peak_memory=line["peak_memory"],
            training=_read_training(line) if "losses" in line else None,
        )


def _read_losses(fields: Mapping[str, Any]) -> LossSums:
    return LossSums(tuple(fields["nll"]), tuple(fields["tokens"]))


def _read_training(line: Mapping[str, Any]) -> TrainingRecord:
    return TrainingRecord(
        losses=tuple(line["losses"]),
        steps=line["steps"],
        rows=line["rows"],
        dropped_rows=line["dropped_rows"],
        tokens=line["tokens"],
        seconds=line["seconds"],
        curve=tuple((step, loss) for step, loss in line["curve"]),
    )
