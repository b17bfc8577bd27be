"""The adapters by name. `train.adapter` of a recipe names an entry."""

from llmctl.registry import Registry
from llmctl.training.adapters.adapter import AdapterMethod

BUILTIN = {
    "full": "llmctl.training.adapters.full:FULL",
    "lora": "llmctl.training.adapters.lora:LORA",
    "qlora": "llmctl.training.adapters.qlora:QLORA",
    "sparse-gin": "llmctl.training.adapters.sparse_gin:SPARSE_GIN",
}
ADAPTERS: Registry[AdapterMethod] = Registry("adapter", "llmctl.adapters", BUILTIN)
EVERY_WEIGHT = "full"  # the only choice for a model that is trained from scratch
