"""The settings of a training run; recipes contain `TrainSettings` as it is.

This module imports no torch, so that a recipe is checked quickly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from llmctl.training.adapters import ADAPTERS
from llmctl.training.adapters.adapter import OPTIONS_KEY
from llmctl.training.adapters.lora import LoraSettings
from llmctl.training.frozen import FrozenSettings


class SaveSettings(FrozenSettings):
    """Checkpoints and logs. None of these settings changes what is learned."""

    save_steps: int = Field(default=100, ge=0)
    """Optimizer steps between two checkpoints. 0 saves none, and a killed run starts again from step 0."""
    keep_checkpoints: bool = False
    """Keep the last checkpoint (weights, optimizer) after the run has finished."""
    logging_steps: int = Field(default=1, ge=1)
    """Optimizer steps between two calls of `progress`. The loss of every step is recorded in any case."""
    report_to: str = "none"
    """A tracker that transformers knows (tensorboard, wandb, mlflow, ...); "none" reports to no tracker."""


class DistributedSettings(FrozenSettings):
    """Configuration files for several GPUs, for runs in which `accelerate launch` is not given one itself."""

    deepspeed: Path | None = None
    """A DeepSpeed configuration (JSON)."""
    fsdp: Path | None = None
    """A JSON file with the `fsdp_config` of transformers. If it is given, FSDP is used."""

    @model_validator(mode="after")
    def _one_of_them(self) -> DistributedSettings:
        if self.deepspeed is not None and self.fsdp is not None:
            raise ValueError("deepspeed and fsdp are both given, but they exclude one another: remove one")
        return self


class TrainSettings(FrozenSettings):
    """How to train. The defaults fit LoRA on a small model; full fine-tuning needs a lower learning rate.

    Rows are not packed, because a packed row would hold examples with different weights.
    """

    adapter: str = "lora"
    """What is trained: every weight ("full"), LoRA ("lora"), LoRA on a 4-bit base model ("qlora"), a
    Sparse-GIN adapter ("sparse-gin"), or an adapter that another package adds."""
    lora: LoraSettings = LoraSettings()
    """Options of the adapters lora and qlora."""
    gin: dict[str, Any] = {}
    """Options of the adapter sparse-gin: the fields of `llmctl.gin.SparseGinConfig`."""
    adapter_options: dict[str, Any] = {}
    """Options of an adapter that another package adds."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate schedule after the warm-up."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0 to its peak."""
    epochs: float = Field(default=1.0, gt=0)
    """Epochs over the rows. Ignored if max_steps is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Total number of optimizer steps; null trains for `epochs`."""
    batch_size: int = Field(default=4, ge=1)
    """Rows per forward pass of one process."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes per optimizer step."""
    max_length: int = Field(default=1024, ge=2)
    """Maximum number of tokens per row. A longer row is dropped and counted, never truncated."""
    loss_on: Literal["last", "assistant", "all"] = "last"
    """Which tokens carry loss: the last response, every assistant response, or every token."""
    optimizer: str = "adamw_torch_fused"
    """The name of an optimizer in transformers (adamw_torch_fused, adamw_8bit, adafactor, ...)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay per step."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Maximum gradient norm; larger gradients are scaled down to it. 0 disables clipping."""
    seed: int = Field(default=0, ge=0)
    """Seed for the order of the rows, the initial weights of the adapter and dropout."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the computation. auto: float32 on CPU, bfloat16 on GPUs that have it, else float16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, with far less memory."""
    save: SaveSettings = SaveSettings()
    """Checkpoints and logs."""
    distributed: DistributedSettings = DistributedSettings()
    """Configuration files for several GPUs."""

    @field_validator("adapter")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ADAPTERS:
            raise PydanticCustomError(
                "adapter", "Input should be one of {known}", {"known": ", ".join(ADAPTERS)}
            )
        return name

    @model_validator(mode="after")
    def _has_own_options(self) -> TrainSettings:
        if self.adapter_options and (key := ADAPTERS[self.adapter].options_key) != OPTIONS_KEY:
            raise ValueError(
                f"adapter_options is given, but the options of adapter {self.adapter} are under {key}: "
                "move them there"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_empty_options(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes and fingerprints of runs that were made before this key existed stay what they were.
        content: dict[str, Any] = serialize(self)
        if not content.get(OPTIONS_KEY, True):
            del content[OPTIONS_KEY]
        return content


class TrainJob(FrozenSettings):
    """One call of `train` as a file, for `python -m llmctl.training job.json`."""

    model: str
    """Alias, folder or Hub name. To continue full fine-tuning, the folder that the previous training made."""
    rows: Path
    """JSONL file, one {"messages": [...], "weight": 1.0} per line; or text or input_ids, with loss_on=all."""
    settings: TrainSettings = TrainSettings()
    """How to train."""
    output: Path
    """Folder for the trained model or adapter."""
    init_adapter: Path | None = None
    """Folder of an adapter to continue training; null starts a new one."""
    eval_rows: Path | None = None
    """JSONL file of rows to evaluate after every epoch."""
    resume: bool = True
    """Resume from what is in `output`; false starts over."""
