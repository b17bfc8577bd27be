"""Tiny random models of every supported family, and an adapter that is easily seen in them."""

from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llmctl.gin import SparseGinConfig

VOCAB, HIDDEN, LAYERS, HEADS = 64, 32, 3, 4
PAD = 0

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,  # sharp attention, so that the graph has edges and gaps
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,  # tied, a random model repeats its last token
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 4, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": None},
    "gpt2": {"n_inner": 48, "n_positions": 128, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
}


def tiny_config(family: str = "llama", **changes: Any) -> Any:
    sizes = _SIZES | FAMILIES[family] | changes
    if family == "gemma3_text":
        sizes["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    if family == "gpt2":
        for name in ("intermediate_size", "num_key_value_heads", "head_dim", "max_position_embeddings"):
            sizes.pop(name)
    return AutoConfig.for_model(family, **sizes)


def tiny_model(family: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(family, **changes)).eval()


def visible_config(**changes: Any) -> SparseGinConfig:
    """An adapter with edges and gaps and a scale that shows in the logits."""
    settings: dict[str, Any] = {
        "width": 8,
        "epsilon": 0.95,  # about half of the possible edges in these models
        "scale_first": 0.5,
        "scale_last": 1.0,
        "task_type": "CAUSAL_LM",
    }
    return SparseGinConfig(**(settings | changes))


def adapted(
    family: str = "llama", seed: int = 0, base: dict[str, Any] | None = None, **changes: Any
) -> PeftModel:
    model = tiny_model(family, seed, **(base or {}))
    torch.manual_seed(seed + 1)
    return get_peft_model(model, visible_config(**changes)).eval()


def some_ids(batch: int = 2, length: int = 10, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (batch, length), generator=generator)


def pad_to(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows of ids of different lengths as one padded batch: (ids, attention mask)."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[i, where], mask[i, where] = row, 1
    return ids, mask


@torch.no_grad()
def logits_of(model: Any, ids: Tensor, **kwargs: Any) -> Tensor:
    return model(input_ids=ids, **kwargs).logits
