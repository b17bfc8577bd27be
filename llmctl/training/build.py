"""From a loaded model, settings and data to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import set_seed

from llmctl.errors import UserError
from llmctl.models.loading import Loaded
from llmctl.training.adapters import ADAPTERS
from llmctl.training.data import Prepared
from llmctl.training.data.images import ImageCollator
from llmctl.training.inputs import TrainInputs
from llmctl.training.setup import add_adapter, first_line
from llmctl.training.weighted import WeightedTrainer


def build_trainer(
    loaded: Loaded, inputs: TrainInputs, args: Any, data: Prepared, evaluation: Any | None
) -> WeightedTrainer:
    """The trainer, with the adapter added to the model.

    Args:
        loaded: Base model, tokenizer and processor.
        inputs: The inputs of the training.
        args: TRL's arguments.
        data: Training rows.
        evaluation: Dataset of the rows to evaluate; None evaluates none.

    Raises:
        UserError: The adapter does not fit the model or the settings.
    """
    set_seed(args.seed)
    settings = inputs.settings
    model, config = add_adapter(loaded.model, settings, inputs.init_adapter)
    adapter = ADAPTERS[settings.adapter]
    goes_on = adapter.has_float32_weights and inputs.init_adapter is not None
    own = _trainable(model) if goes_on else {}
    try:
        trainer = WeightedTrainer(
            model=model,
            args=args,
            train_dataset=data.dataset,
            eval_dataset=evaluation,
            processing_class=loaded.tokenizer,
            data_collator=None if loaded.processor is None else ImageCollator(loaded.processor),
            peft_config=config,
        )
    except ValueError as error:
        raise UserError(
            f"adapter {settings.adapter} does not fit {inputs.model} ({first_line(error)}): change its "
            "settings, or train another adapter"
        ) from error
    if adapter.has_float32_weights:
        _keep_float32(trainer.model, own)
    return trainer


def _trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.data.clone() for name, p in model.named_parameters() if p.requires_grad}


def _keep_float32(model: Any, own: Mapping[str, torch.Tensor]) -> None:
    """Undo TRL's rounding of adapters on 4-bit weights to bfloat16.

    Small updates vanish in bfloat16, which is slow on CPUs as well. An adapter that is trained further gets
    its own weights back, as they were before the trainer was built.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = own.get(name, parameter.data).to(torch.float32)
