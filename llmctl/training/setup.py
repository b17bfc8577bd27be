"""From `TrainSettings` to what TRL needs: its arguments, the model, the configuration of the adapter."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from llmctl.errors import UserError
from llmctl.models.description import reads_images
from llmctl.models.devices import pick_dtype
from llmctl.models.loading import Loaded, attach_adapter, load, load_image_text
from llmctl.training.adapters import ADAPTERS
from llmctl.training.config import TrainSettings


def build_arguments(settings: TrainSettings, checkpoints: Path) -> SFTConfig:
    """The arguments of TRL's trainer; building them also joins the processes of a distributed run.

    Raises:
        UserError: An optimizer that transformers does not know; a configuration file or a library is missing.
    """
    has_cuda = torch.cuda.is_available()
    dtype = pick_dtype(settings.dtype, torch.device("cuda" if has_cuda else "cpu"))
    save = settings.save
    try:
        return SFTConfig(
            output_dir=str(checkpoints),
            learning_rate=settings.learning_rate,
            lr_scheduler_type=_schedule(settings),
            warmup_steps=settings.warmup_ratio,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            optim=_optimizer(settings.optimizer),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            bf16=dtype is torch.bfloat16,
            fp16=dtype is torch.float16,
            gradient_checkpointing=settings.gradient_checkpointing,
            save_strategy="steps" if save.save_steps else "no",
            save_steps=max(save.save_steps, 1),
            logging_steps=1,  # a loss that spans a checkpoint would differ after a kill
            logging_nan_inf_filter=False,
            report_to=save.report_to,
            disable_tqdm=True,
            log_level="error",
            use_cpu=not has_cuda,
            dataloader_pin_memory=has_cuda,
            pad_to_multiple_of=8 if has_cuda else None,
            # Rows come tokenized, checked and short enough; the collator drops what the model does not take.
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            **_distributed(settings),
        )
    except ImportError as error:
        raise UserError(
            f"a library is missing ({first_line(error)}): install it, or change the settings"
        ) from error


def load_model(model: str | Path, settings: TrainSettings, args: SFTConfig) -> Loaded:
    """The base model and its tokenizer, placed for training as the adapter needs it.

    Raises:
        UserError: As `llmctl.models.load`; or bitsandbytes is missing for a quantized base model.
    """
    # A sharded model is placed by FSDP or DeepSpeed; as a whole it might not fit on one device.
    device = "cpu" if _is_sharded(args) else str(args.device)
    base = ADAPTERS[settings.adapter].base
    dtype = base.dtype or settings.dtype
    if dtype == "auto" and args.device.type != "cpu":
        dtype = "bfloat16" if args.bf16 else "float16"
    if base.quantization != "none":
        device = str(args.device)  # quantized weights are made on the device that uses them
    opener = load_image_text if reads_images(model) else load
    return opener(model, device=device, dtype=dtype, quantization=base.quantization)


def add_adapter(
    model: Any, settings: TrainSettings, init_adapter: str | Path | None
) -> tuple[Any, Any | None]:
    """The model for the trainer, and the configuration of the adapter that the trainer adds to it.

    Raises:
        UserError: `init_adapter` with full fine-tuning, or one that does not fit the model or the settings;
            or unknown options of the adapter.
    """
    adapter = ADAPTERS[settings.adapter]
    adapter.check_start(init_adapter)
    if init_adapter is None:
        return model, adapter.config(settings, model)
    tuned = attach_adapter(model, init_adapter, is_trainable=True)
    adapter.check_saved(str(tuned.peft_config["default"].peft_type.value), init_adapter)
    return tuned, None


def _schedule(settings: TrainSettings) -> str:
    has_warmup = settings.schedule == "constant" and settings.warmup_ratio > 0
    return "constant_with_warmup" if has_warmup else settings.schedule


def _optimizer(name: str) -> str:
    from transformers.training_args import OptimizerNames

    known = [optimizer.value for optimizer in OptimizerNames]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "try adamw_torch_fused"
        raise UserError(f"optimizer is {name!r}, which transformers does not know: {hint}")
    return name


def _distributed(settings: TrainSettings) -> dict[str, Any]:
    files = settings.distributed
    for path in (files.deepspeed, files.fsdp):
        if path is not None and not path.is_file():
            raise UserError(f"the configuration file {path} does not exist: check the path")
    if files.deepspeed is not None:
        return {"deepspeed": str(files.deepspeed)}
    if files.fsdp is not None:
        return {"fsdp": True, "fsdp_config": str(files.fsdp)}
    return {}


def _is_sharded(args: SFTConfig) -> bool:
    """Whether weights are divided among processes, by the settings or by `accelerate launch`."""
    # accelerate hands its own configuration on in these variables.
    launched = (os.environ.get(f"ACCELERATE_USE_{kind}", "false") for kind in ("FSDP", "DEEPSPEED"))
    return bool(args.deepspeed or args.fsdp) or any(value.lower() in ("true", "1") for value in launched)


def first_line(error: Exception) -> str:
    """The part of a library's message that fits into ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
