"""From a recipe to arms of equal size: ranks, widths and MLPs solved for the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.quiet import quiet_libraries
from llmctl.studies.adapters.recipe import CompareRecipe
from llmctl.training.config import LoraSettings, TrainSettings
from llmctl.training.recipe import Architecture

BASE = "base"
GINS = ("sparse_gin", "self_loop")


@dataclass(frozen=True)
class Arm:
    """One method of the comparison, its size solved."""

    name: str
    size: str  # in words
    parameters: int  # trained; 0 for the model as it came
    settings: TrainSettings | None  # None: not trained
    architecture: Architecture | None = None  # from scratch


def resolve_arms(recipe: CompareRecipe) -> list[Arm]:
    """The arms of a recipe.

    The coarsest dial is solved first: LoRA's rank for the budget, then Sparse-GIN's width for what that
    rank really takes.

    Raises:
        UserError: The budget is below what an arm takes at least, or its options do not fit the model.
    """
    with quiet_libraries():
        if recipe.architectures is not None:
            return _architectures(recipe, recipe.architectures)
        return _adapters(recipe)


def mismatch(arms: list[Arm]) -> float:
    """How much larger the largest trained arm is than the smallest, as a share of the smallest."""
    sizes = [arm.parameters for arm in arms if arm.settings is not None]
    return max(sizes) / min(sizes) - 1 if sizes else 0.0


def _adapters(recipe: CompareRecipe) -> list[Arm]:
    from transformers import AutoConfig

    from llmctl.gin import SparseGinConfig, count_sparse_gin

    config = AutoConfig.from_pretrained(resolve(recipe.model))
    gin = _gin_config(SparseGinConfig, recipe.train.gin)
    _check_layers(config, gin)
    budget = recipe.budget or count_sparse_gin(config, gin)
    found: dict[str, Arm] = {BASE: Arm(BASE, "–", 0, None)}
    if "lora" in recipe.arms:
        found["lora"] = _lora_arm(recipe, config, budget)
        budget = found["lora"].parameters
    for name in GINS:
        if name in recipe.arms:
            found[name] = _gin_arm(recipe, config, gin, name, budget)
    return [found[name] for name in recipe.arms]


def _gin_config(make: Any, options: dict[str, Any]) -> Any:
    from llmctl.training.setup import first_line

    try:
        return make(**({"task_type": "CAUSAL_LM"} | options))
    except TypeError as error:
        raise UserError(
            f"train.gin has an option that Sparse-GIN does not know ({first_line(error)})"
        ) from error


def _check_layers(config: Any, gin: Any) -> None:
    layers = config.get_text_config(decoder=True).num_hidden_layers
    if gin.layers is not None and max(gin.layers) >= layers:
        raise UserError(
            f"train.gin.layers has {max(gin.layers)}, but the model has {layers} layers, counted from 0: "
            f"choose at most {layers - 1}"
        )


def _lora_arm(recipe: CompareRecipe, config: Any, budget: int) -> Arm:
    from llmctl.gin import solve_rank
    from llmctl.gin.matched import linear_targets

    lora = recipe.train.lora
    targets = lora.target_modules
    names = linear_targets(config) if isinstance(targets, str) else list(targets)
    match = solve_rank(config, budget, names)
    # alpha / rank is the scale of an update: it stays what the recipe says, whatever the rank.
    alpha = max(1, round(match.size * lora.alpha / lora.r))
    shape = LoraSettings(r=match.size, alpha=alpha, dropout=lora.dropout, target_modules=tuple(names))
    settings = recipe.train.model_copy(update={"adapter": "lora", "lora": shape, "gin": {}})
    return Arm("lora", f"rank {match.size}", match.parameters, settings)


def _gin_arm(recipe: CompareRecipe, config: Any, gin: Any, name: str, budget: int) -> Arm:
    from llmctl.gin import solve_width

    match = solve_width(config, gin, budget)
    loops = {"self_loops": "only"} if name == "self_loop" else {}
    options = recipe.train.gin | loops | {"width": match.size}
    settings = recipe.train.model_copy(update={"adapter": "sparse-gin", "gin": options})
    return Arm(name, f"width {match.size}", match.parameters, settings)


def _architectures(recipe: CompareRecipe, architectures: dict[str, Architecture]) -> list[Arm]:
    from llmctl.training.scratch import build_config, count_parameters, load_scratch_tokenizer, match_size

    tokenizers = {
        name: load_scratch_tokenizer(architecture, recipe.model)
        for name, architecture in architectures.items()
    }
    if len({architecture.tokenizer for architecture in architectures.values()}) > 1:
        raise UserError(
            "architectures have different tokenizers, but losses a token compare only with the same one: "
            "give all the same tokenizer"
        )
    first = next(iter(architectures))
    budget = recipe.budget or count_parameters(build_config(architectures[first], tokenizers[first]))
    settings = recipe.train.model_copy(update={"adapter": "full", "gin": {}})
    arms = []
    for name, architecture in architectures.items():
        sized, count = match_size(architecture, tokenizers[name], budget)
        arms.append(Arm(name, f"MLP width {sized.intermediate_size}", count, settings, sized))
    return arms
