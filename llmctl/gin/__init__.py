"""Sparse-GIN adapters and graph attention: message passing over a decoder's own attention graph.

`import llmctl.gin` loads no torch: the names below are imported when first used. Importing one of them, or
calling `register()`, makes PEFT and transformers know Sparse-GIN and Graph-Llama, which must happen before
a saved adapter or model is loaded by `AutoPeftModelForCausalLM` or `AutoModelForCausalLM`:

    from peft import get_peft_model
    from llmctl.gin import SparseGinConfig

    model = get_peft_model(model, SparseGinConfig(width=64, task_type="CAUSAL_LM"))

Source of both methods: M. Buehler, "Graph-Aware Isomorphic Attention for Adaptive Dynamics in
Transformers", arXiv 2501.02393.
"""

from typing import Any

from llmctl.lazy import lazy_names

_HOMES = {
    "SparseGinConfig": "config",
    "SparseGinLayer": "decoder_layer",
    "SparseGinModel": "model",
    "GraphLlamaConfig": "graph_llama",
    "GraphLlamaForCausalLM": "graph_llama",
    "GinAttention": "attention",
    "PnaAttention": "attention",
    "LayerGraph": "inspect",
    "adapter_graphs": "inspect",
    "count_trainable": "matched",
    "solve_rank": "matched",
    "solve_width": "matched",
    "count_sparse_gin": "matched",
    "count_lora": "matched",
    "Match": "matched",
}

__all__ = [*_HOMES, "register"]


def register() -> None:
    """Make PEFT know Sparse-GIN and transformers know Graph-Llama; calling it again changes nothing."""
    from llmctl.gin import registration

    registration.register()


_find = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name of this package when it is first used, and have PEFT know the adapter by then."""
    if name in _HOMES:
        register()
    return _find(name)
