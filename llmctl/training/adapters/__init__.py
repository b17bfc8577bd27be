"""Adapters: what a training run trains, one file per adapter, found by name.

`train.adapter` of a recipe names an entry of `ADAPTERS`. A package of yours adds one by an entry point of the
group `llmctl.adapters` that names an `AdapterMethod`; its options are the recipe's `train.adapter_options`.
"""

from llmctl.training.adapters.adapter import Ablation, AdapterMethod, BaseWeights, SizedAdapter
from llmctl.training.adapters.registry import ADAPTERS, BUILTIN, EVERY_WEIGHT

__all__ = ["ADAPTERS", "BUILTIN", "EVERY_WEIGHT", "Ablation", "AdapterMethod", "BaseWeights", "SizedAdapter"]
