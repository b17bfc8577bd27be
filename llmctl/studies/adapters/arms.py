"""From a recipe to arms of equal size: ranks and widths are chosen for the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.quiet import quiet_libraries
from llmctl.studies.adapters.arm_kinds import BASE, ArmKind, arm_kind, default_budget
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.training.adapters import EVERY_WEIGHT
from llmctl.training.config import TrainSettings
from llmctl.training.recipe import Architecture


@dataclass(frozen=True)
class Arm:
    """One method of the comparison at its chosen size."""

    name: str
    size: str  # in words
    parameters: int  # trained parameters; 0 for the base model
    settings: TrainSettings | None  # None: not trained
    architecture: Architecture | None = None  # from scratch


def resolve_arms(recipe: AdapterCompareRecipe) -> list[Arm]:
    """The arms of a recipe.

    The reference adapter, whose size has the coarsest steps, is matched to the budget first; the others are
    matched to the number of parameters that it then trains.

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


def _adapters(recipe: AdapterCompareRecipe) -> list[Arm]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolve(recipe.model))
    budget = recipe.budget or default_budget(config, recipe.train)
    kinds = {name: arm_kind(name) for name in recipe.arms if name != BASE}
    found: dict[str, Arm] = {BASE: Arm(BASE, "–", 0, None)}
    for name, kind in sorted(kinds.items(), key=lambda item: not item[1].is_reference):
        found[name] = _adapter_arm(kind, config, recipe.train, budget)
        if kind.is_reference:
            budget = found[name].parameters
    return [found[name] for name in recipe.arms]


def _adapter_arm(kind: ArmKind, config: Any, train: TrainSettings, budget: int) -> Arm:
    """The arm of an adapter, its size chosen for the budget; options of other adapters are left out."""
    if kind.adapter.match_size is None:
        raise UserError(f"adapter {kind.adapter.name} has no size to match a budget: choose another arm")
    key = kind.adapter.options_key
    sized = kind.adapter.match_size(config, train.model_copy(update={"adapter": kind.adapter.name}), budget)
    settings = sized.settings
    others: dict[str, Any] = {name: {} for name in ("gin", "adapter_options") if name != key}
    if kind.options:
        others[key] = getattr(settings, key) | kind.options
    return Arm(kind.name, sized.size, sized.parameters, settings.model_copy(update=others))


def _architectures(recipe: AdapterCompareRecipe, architectures: dict[str, Architecture]) -> list[Arm]:
    from llmctl.training.scratch import build_config, count_parameters, load_scratch_tokenizer, match_size

    tokenizers = {
        name: load_scratch_tokenizer(architecture, recipe.model)
        for name, architecture in architectures.items()
    }
    if len({architecture.tokenizer for architecture in architectures.values()}) > 1:
        raise UserError(
            "architectures have different tokenizers, but losses per token compare only with the same one: "
            "give all the same tokenizer"
        )
    first = next(iter(architectures))
    budget = recipe.budget or count_parameters(build_config(architectures[first], tokenizers[first]))
    settings = recipe.train.model_copy(update={"adapter": EVERY_WEIGHT, "gin": {}})
    arms = []
    for name, architecture in architectures.items():
        sized, count = match_size(architecture, tokenizers[name], budget)
        arms.append(Arm(name, f"MLP width {sized.intermediate_size}", count, settings, sized))
    return arms
