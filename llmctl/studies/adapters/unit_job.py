"""The input of one unit of a comparison."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llmctl.studies.adapters.recipe import Accuracy, Curve
from llmctl.training.config import TrainSettings
from llmctl.training.recipe import Architecture, TrainDataSettings


class UnitJob(BaseModel):
    """The input of a unit. It is a JSON file where the unit runs in its own process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Folder of the model; for training from scratch, the name of the model whose tokenizer is used."""
    architecture: Architecture | None = None
    """The architecture to train from scratch."""
    settings: TrainSettings
    """How to train; for a model that is not trained, how to evaluate."""
    is_trained: bool = True
    """False measures the base model without training."""
    training: Path
    """JSONL file of training rows."""
    validation: Path
    """JSONL file of validation rows."""
    fit: Path
    """JSONL file of the training rows on which the training loss is measured."""
    output: Path
    """Folder for the trained adapter or model."""
    curve: Curve = Curve()
    """Validation losses during training."""
    data: TrainDataSettings = TrainDataSettings()
    """The source of the problems of `accuracy`."""
    accuracy: Accuracy = Accuracy()
    """Accuracy on a task."""
