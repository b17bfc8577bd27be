"""What a training run may be told; recipes nest `TrainSettings` as it stands.

Light on purpose: pydantic and nothing else, so that a recipe is checked without importing torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Adapter = Literal["full", "lora", "qlora", "sparse-gin"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LoraSettings(_Frozen):
    """Low-rank adapters (Hu et al., arXiv 2106.09685); used by `adapter: lora` and `qlora`."""

    r: int = Field(default=16, ge=1)
    """Rank of each update."""
    alpha: int = Field(default=32, ge=1)
    """Scale: an update is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped while training."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Name suffixes of the layers to adapt, a regular expression for whole names, or "all-linear": every
    linear layer but the output head."""


class SaveSettings(_Frozen):
    """Checkpoints and logs; none of it changes what is learned."""

    save_steps: int = Field(default=100, ge=0)
    """Optimizer steps between two checkpoints; 0 keeps none, and a killed run starts from step 0."""
    keep_checkpoints: bool = False
    """Keep the last checkpoint (weights, optimizer) after the run has finished."""
    logging_steps: int = Field(default=1, ge=1)
    """Optimizer steps between two calls of `progress`; losses are recorded at every step regardless."""
    report_to: str = "none"
    """A tracker that transformers knows (tensorboard, wandb, mlflow...); none sends nothing anywhere."""


class DistributedSettings(_Frozen):
    """Configuration files for several GPUs, where `accelerate launch` is not given one itself."""

    deepspeed: Path | None = None
    """A DeepSpeed JSON file."""
    fsdp: Path | None = None
    """A JSON file with the `fsdp_config` of transformers; giving it turns FSDP on."""

    @model_validator(mode="after")
    def _one_of_them(self) -> DistributedSettings:
        if self.deepspeed is not None and self.fsdp is not None:
            raise ValueError("deepspeed and fsdp are both given, but they exclude one another: drop one")
        return self


class TrainSettings(_Frozen):
    """How to train. Defaults fit LoRA on a small model; full fine-tuning wants a lower learning rate.

    There is no packing: a packed row would hold examples of different weights.
    """

    adapter: Adapter = "lora"
    """What is trained: every weight (full), LoRA, LoRA on 4-bit weights (qlora) or a Sparse-GIN adapter."""
    lora: LoraSettings = LoraSettings()
    """Shape of the low-rank adapters."""
    gin: dict[str, Any] = {}
    """Options of `llmctl.gin.SparseGinConfig`; read only where adapter is sparse-gin."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the rows; ignored where max_steps is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(default=4, ge=1)
    """Rows in one forward pass of one process."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes in one optimizer step."""
    max_length: int = Field(default=1024, ge=2)
    """Tokens of a row at most; a longer row is dropped and counted, never cut."""
    loss_on: Literal["last", "assistant", "all"] = "last"
    """Which tokens carry loss: the last response, every assistant response, or every token."""
    optimizer: str = "adamw_torch_fused"
    """A name that transformers knows (adamw_torch_fused, adamw_8bit, adafactor...)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay a step."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    seed: int = Field(default=0, ge=0)
    """Of the order of rows, the adapter's first weights and dropout."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the computation: auto is float32 on CPU, bfloat16 on GPUs that have it, else float16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory."""
    save: SaveSettings = SaveSettings()
    """Checkpoints and logs."""
    distributed: DistributedSettings = DistributedSettings()
    """Several GPUs without a file for `accelerate launch`."""


class TrainJob(_Frozen):
    """One call of `train` as a file, for `python -m llmctl.training job.json`."""

    model: str
    """Alias, folder or Hub name; the folder of the previous iteration where full fine-tuning goes on."""
    rows: Path
    """JSONL file, one {"messages": [...], "weight": 1.0} a line; text and input_ids with loss_on=all."""
    settings: TrainSettings = TrainSettings()
    """How to train."""
    output: Path
    """Folder of the trained model or adapter."""
    init_adapter: Path | None = None
    """Folder of an adapter to go on training."""
    eval_rows: Path | None = None
    """JSONL file of rows to evaluate after every epoch."""
    resume: bool = True
    """Go on from what is in `output`; false starts over."""
