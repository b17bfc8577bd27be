"""The recipe of supervised fine-tuning: model or architecture, data, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.runs import Recipe
from llmctl.tasks.settings import TaskSettings
from llmctl.training.adapters import ADAPTERS, EVERY_WEIGHT
from llmctl.training.config import TrainSettings


class TaskData(TaskSettings):
    """Problems of a task that have reference solutions, as conversations."""

    name: str = "sort"
    """Name of the task, as `llmctl tasks list` shows it."""
    split: str = "train"
    """Split that rows are drawn from."""
    validation_path: Path | None = None
    """File or folder of validation problems, if they have their own."""
    validation_split: str | None = None
    """Split of validation problems; null takes problems of the same split that are not training rows."""


class TrainDataSettings(Recipe):
    """Which rows are used for training, and which for validation."""

    task: TaskData | None = None
    """A task with reference solutions; where neither task nor path is given, the built-in sort task."""
    path: str | None = None
    """A JSONL file (messages, prompt and completion, or text), a .txt file, or a data set on the Hub."""
    config: str | None = None
    """Configuration of a data set on the Hub."""
    split: str = "train"
    """Split of a data set on the Hub, or of a folder of files."""
    text_field: str = "text"
    """Field of the text, for rows that have neither messages nor prompt and completion."""
    validation_path: str | None = None
    """Source of the validation rows; null holds out some of the rows."""
    validation_split: str | None = None
    """Split of validation rows; null is `split`."""
    rows: int | None = Field(default=None, ge=1)
    """Maximum number of training rows; null takes all."""
    validation_rows: int = Field(default=128, ge=0)
    """Number of validation rows; 0 uses none."""
    block: int | None = Field(default=None, ge=8)
    """Number of tokens per block into which rows are packed; needs loss on all tokens."""
    seed: int = Field(default=0, ge=0)
    """Seed for the choice and the order of rows."""

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("task") is None and content.get("path") is None:
            return {**content, "task": {}}
        return content

    @model_validator(mode="after")
    def _one_source(self) -> TrainDataSettings:
        if self.task is not None and self.path is not None:
            raise ValueError(
                f"data.task is {self.task.name} and data.path is {self.path}, but rows come from one of "
                "them: set data.task=null, or data.path=null"
            )
        return self

    @property
    def is_apart(self) -> bool:
        """Whether validation rows have a source of their own."""
        if self.task is not None:
            return self.task.validation_path is not None or self.task.validation_split is not None
        return self.validation_path is not None or self.validation_split is not None


class Architecture(Recipe):
    """A decoder that is trained from scratch: a plain Llama, or one with GIN- or PNA-attention."""

    attention: Literal["plain", "gin", "pna"] = "plain"
    """How heads aggregate other tokens; gin and pna are those of arXiv 2501.02393."""
    hidden_size: int = Field(default=256, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Number of decoder layers."""
    heads: int = Field(default=4, ge=1)
    """Number of attention heads per layer."""
    intermediate_size: int = Field(default=512, ge=1)
    """Width of the MLP of each layer."""
    context: int = Field(default=512, ge=8)
    """Maximum number of tokens per row."""
    options: dict[str, Any] = {}
    """Further fields of `LlamaConfig` or `GraphLlamaConfig`: graph_threshold_mode, graph_blend, ..."""
    tokenizer: str | None = None
    """Model whose tokenizer is used, or "bytes" for the 256 bytes; null uses that of the recipe's model."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, but {self.heads} heads share it evenly: "
                f"set hidden_size to a multiple of {self.heads}"
            )
        return self


class SftRecipe(Recipe):
    """Supervised fine-tuning of a pretrained model, or training from scratch."""

    kind: ClassVar[str] = "sft"
    free_keys: ClassVar[tuple[str, ...]] = ("train.save", "launch")

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """An adapter to continue training."""
    architecture: Architecture | None = None
    """Architecture to train from scratch; then only the tokenizer of `model` is used."""
    data: TrainDataSettings = TrainDataSettings()
    """Training and validation rows."""
    train: TrainSettings = TrainSettings()
    """How to train."""
    launch: Path | None = None
    """An accelerate configuration, to train on several GPUs."""

    @model_validator(mode="after")
    def _parts_agree(self) -> SftRecipe:
        check_loss(self.data, self.train)
        if self.architecture is None:
            return self
        if ADAPTERS[self.train.adapter].is_peft:
            raise ValueError(
                f"architecture is given and train.adapter is {self.train.adapter}, but a model from scratch "
                f"has no weights to adapt: set train.adapter={EVERY_WEIGHT}"
            )
        if self.adapter is not None:
            raise ValueError(
                "architecture and adapter are both given, but they exclude one another: remove one"
            )
        return self


def check_loss(data: TrainDataSettings, train: TrainSettings) -> None:
    """Refuse packing if only responses carry loss.

    Raises:
        ValueError: The settings contradict each other; pydantic reports it.
    """
    if data.block is not None and train.loss_on != "all":
        raise ValueError(
            f"data.block is {data.block} and train.loss_on is {train.loss_on}, but a block has no responses: "
            "set train.loss_on=all, or data.block=null"
        )
    if data.block is not None and data.block > train.max_length:
        raise ValueError(
            f"data.block is {data.block} tokens and train.max_length is {train.max_length}, so every block "
            "would be dropped: raise train.max_length"
        )
