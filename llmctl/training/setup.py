"""From `TrainSettings` to what TRL wants: its arguments, the model, the adapter's configuration."""

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
from llmctl.training.config import TrainSettings
from llmctl.training.picture_data import language_targets


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
    """The base model and its tokenizer, placed for training.

    Full fine-tuning keeps float32 weights and computes in `settings.dtype`: the updates of a small learning
    rate vanish in bfloat16 weights. With adapters the frozen weights lie in `settings.dtype` (qlora: NF4).

    Raises:
        UserError: As `llmctl.models.load`; bitsandbytes is missing for qlora.
    """
    # A sharded model is placed by FSDP or DeepSpeed; whole, it might not fit on one device.
    device = "cpu" if _is_sharded(args) else str(args.device)
    dtype = settings.dtype
    if settings.adapter == "full":
        dtype = "float32"
    elif dtype == "auto" and args.device.type != "cpu":
        dtype = "bfloat16" if args.bf16 else "float16"
    quantization = "nf4" if settings.adapter == "qlora" else "none"
    if quantization == "nf4":
        device = str(args.device)  # 4-bit weights are made on the device that uses them
    opener = load_image_text if reads_images(model) else load
    return opener(model, device=device, dtype=dtype, quantization=quantization)


def add_adapter(
    model: Any, settings: TrainSettings, init_adapter: str | Path | None
) -> tuple[Any, Any | None]:
    """The model to hand to the trainer, and the configuration of an adapter that it is to add.

    Raises:
        UserError: `init_adapter` with full fine-tuning, or one that does not fit the model or the settings;
            unknown options of the adapter, or Sparse-GIN is missing.
    """
    if init_adapter is not None:
        if settings.adapter == "full":
            raise UserError(
                f"init_adapter is {init_adapter}, but adapter is full, which trains no adapter: give the "
                "previous model's folder as the model, or set adapter to lora"
            )
        tuned = attach_adapter(model, init_adapter, is_trainable=True)
        _check_kind(tuned.peft_config["default"], settings.adapter, init_adapter)
        return tuned, None
    if settings.adapter == "full":
        return model, None
    if settings.adapter == "sparse-gin":
        return model, _gin_config(settings.gin)
    return model, _lora_config(settings, model)


def _check_kind(config: Any, adapter: str, folder: str | Path) -> None:
    found = str(config.peft_type.value)
    is_lora = found == "LORA"
    if is_lora != (adapter in ("lora", "qlora")):
        raise UserError(
            f"init_adapter {folder} is a {found} adapter, but adapter is {adapter}: make the two agree"
        )


def _lora_config(settings: TrainSettings, model: Any) -> Any:
    from peft import LoraConfig

    lora = settings.lora
    modules = lora.target_modules
    if model.config is not model.config.get_text_config():  # it has a part that sees, which stays as it is
        modules = language_targets(model, modules)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


def _gin_config(options: dict[str, Any]) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("llmctl.gin") is None:
        raise UserError("adapter is sparse-gin, but this installation has no llmctl.gin: set adapter to lora")
    try:
        return import_module("llmctl.gin").SparseGinConfig(**({"task_type": "CAUSAL_LM"} | options))
    except TypeError as error:
        raise UserError(f"gin has an option that Sparse-GIN does not know ({first_line(error)})") from error


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
