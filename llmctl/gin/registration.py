"""Make Sparse-GIN known to PEFT, and Graph-Llama known to transformers."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.peft_types import register_peft_method

from llmctl.gin.attention_hook import register_attention_hook
from llmctl.gin.config import SparseGinConfig
from llmctl.gin.graph_llama import register_graph_llama
from llmctl.gin.model import SparseGinModel
from llmctl.gin.peft_type import METHOD, PREFIX, add_peft_type


def register() -> None:
    """Register the adapter with PEFT, its attention hook and Graph-Llama with transformers; idempotent."""
    kind = add_peft_type(METHOD)
    if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    register_peft_method(name=METHOD, config_cls=SparseGinConfig, model_cls=SparseGinModel, prefix=PREFIX)
    register_attention_hook()
    register_graph_llama()
