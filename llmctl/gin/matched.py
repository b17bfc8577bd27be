"""Adapters of equal size: the Sparse-GIN width and the LoRA rank nearest to a number of trainable parameters.

A comparison of two methods means little if one trains ten times as many parameters. The counts here are
computed from the model's config; no weight is allocated.

    gin = solve_width(model.config, SparseGinConfig(depth=1), budget=1_000_000)
    lora = solve_rank(model.config, budget=gin.parameters, target_modules=["q_proj", "v_proj"])
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from llmctl.errors import UserError
from llmctl.gin.config import SparseGinConfig


@dataclass(frozen=True)
class Match:
    """The size that comes nearest to a budget."""

    size: int  # width of a Sparse-GIN or rank of a LoRA
    parameters: int  # trainable parameters at this size
    budget: int  # the requested number of parameters

    @property
    def relative_error(self) -> float:
        """How far the number of parameters is from the budget, as a share of the budget."""
        return (self.parameters - self.budget) / self.budget


def count_trainable(model: nn.Module) -> int:
    """The number of trainable parameters of a model.

    Packed 4-bit weights are never trainable, so nothing is counted twice or half.
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_sparse_gin(model_config: PretrainedConfig, config: SparseGinConfig) -> int:
    """The number of parameters that a Sparse-GIN adapter trains.

    Args:
        model_config: Config of the base model.
        config: The adapter; `layers` decides how many GINs there are (`target_modules` is not read).

    Raises:
        UserError: The width is not a multiple of the number of heads, with one graph per head.
    """
    text = model_config.get_text_config(decoder=True)
    layers = text.num_hidden_layers if config.layers is None else len(config.layers)
    shape = config.shape(text.hidden_size, text.num_attention_heads)
    return layers * shape.parameters(config.train_scale)


def count_lora(model_config: PretrainedConfig, rank: int, target_modules: Sequence[str]) -> int:
    """The number of parameters that a LoRA (without bias or DoRA) trains: rank (in + out) per target.

    Args:
        model_config: Config of the base model.
        rank: Rank of every target.
        target_modules: Names of linear layers, matched as PEFT matches a list: by the end of the full name.

    Raises:
        UserError: A name matches no linear layer.
    """
    return rank * sum(_sides(model_config, target_modules))


def solve_width(model_config: PretrainedConfig, config: SparseGinConfig, budget: int) -> Match:
    """The Sparse-GIN width whose number of trainable parameters comes nearest to a budget.

    Args:
        model_config: Config of the base model.
        config: The adapter; its width is not read.
        budget: Number of trainable parameters wanted.

    Returns:
        The width, a multiple of the number of heads with one graph per head; the smaller one of a tie.

    Raises:
        UserError: The budget is below the parameters of the smallest width.
    """
    text = model_config.get_text_config(decoder=True)
    step = text.num_attention_heads if config.heads == "each" else 1

    def count(steps: int) -> int:
        # A copy that is not built anew: a config that PEFT has filled in stays as it is.
        sized = copy.copy(config)
        sized.width = steps * step
        return count_sparse_gin(model_config, sized)

    match = _nearest(count, budget, "Sparse-GIN width", step)
    return replace(match, size=match.size * step)


def solve_rank(model_config: PretrainedConfig, budget: int, target_modules: Sequence[str]) -> Match:
    """The LoRA rank whose number of trainable parameters comes nearest to a budget.

    Args:
        model_config: Config of the base model.
        budget: Number of trainable parameters wanted.
        target_modules: Names of linear layers, as for `count_lora`.

    Returns:
        The rank; the smaller one of a tie.

    Raises:
        UserError: A name matches no linear layer, or the budget is below the parameters of rank 1.
    """
    per_rank = count_lora(model_config, 1, target_modules)
    return _nearest(lambda rank: rank * per_rank, budget, "LoRA rank", 1)


def linear_targets(model_config: PretrainedConfig) -> list[str]:
    """Names of the linear layers of a model but its output head: what "all-linear" means, as a list."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
    )


def _nearest(count: Callable[[int], int], budget: int, what: str, unit: int) -> Match:
    """Search a growing count for the size nearest to a budget, by doubling and halving."""
    if count(1) > budget:
        raise UserError(
            f"budget is {budget} parameters, but the smallest {what} ({unit}) takes {count(1)}: raise the "
            "budget or choose fewer layers"
        )
    low, high = 1, 2  # count(low) <= budget < count(high)
    while count(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    size = low if budget - count(low) <= count(high) - budget else high
    return Match(size=size, parameters=count(size), budget=budget)


def _sides(model_config: PretrainedConfig, target_modules: Sequence[str]) -> list[int]:
    """In + out of every linear layer that a target names, read from a model on the meta device."""
    if isinstance(target_modules, str):
        raise UserError(
            f"target_modules is the string {target_modules!r}, but a list of names is needed: "
            f"[{target_modules!r}]"
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    linear: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    sides = []
    unmatched = set(target_modules)
    for name, module in linear.items():
        hits = {target for target in target_modules if name == target or name.endswith(f".{target}")}
        unmatched -= hits
        if hits:
            sides.append(sum(module.weight.shape))
    if unmatched or not sides:
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(
            f"target_modules names {', '.join(sorted(unmatched)) or 'nothing'}, but the model's linear "
            f"layers are {', '.join(known)}: choose among these"
        )
    return sides
