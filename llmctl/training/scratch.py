"""Models for training from scratch: an `Architecture` becomes a model folder with random weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.training.recipe import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTES = "bytes"


def load_scratch_tokenizer(architecture: Architecture, model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of an architecture: bytes, or that of a model.

    Raises:
        UserError: No such model.
    """
    if architecture.tokenizer == BYTES:
        from llmctl.models.tiny import tiny_tokenizer

        return tiny_tokenizer()
    from llmctl.models.loading import load_tokenizer

    return load_tokenizer(architecture.tokenizer or model)


def build_config(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The transformers config of an architecture.

    Raises:
        UserError: An option that the config does not know, or one out of its range.
    """
    from transformers import LlamaConfig

    from llmctl.gin import GraphLlamaConfig

    is_plain = architecture.attention == "plain"
    make: Any = LlamaConfig if is_plain else GraphLlamaConfig
    known = set(make().to_dict())
    if unknown := sorted(set(architecture.options) - known):
        raise UserError(
            f"architecture.options has {', '.join(unknown)}, but {make.__name__} has no such field: remove it"
        )
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.heads,
        "max_position_embeddings": architecture.context,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    graph = {} if is_plain else {"graph_attention": architecture.attention}
    return make(**(sizes | graph | architecture.options))


def count_parameters(config: Any) -> int:
    """Parameters of a model with this config; no weight is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    from llmctl.gin import register

    register()
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())


def match_size(
    architecture: Architecture, tokenizer: PreTrainedTokenizerBase, budget: int
) -> tuple[Architecture, int]:
    """The architecture with the MLP width whose number of parameters is nearest to a budget, and that number.

    Raises:
        UserError: The parameters outside the MLPs exceed the budget.
    """

    def count(width: int) -> int:
        sized = architecture.model_copy(update={"intermediate_size": width})
        return count_parameters(build_config(sized, tokenizer))

    first = count(1)
    slope = count(2) - first  # parameters grow linearly with the width
    if first > budget:
        raise UserError(
            f"the budget is {budget:,} parameters, but {architecture.attention} attention with hidden_size "
            f"{architecture.hidden_size} and {architecture.layers} layers takes {first:,} with an MLP of "
            "width 1: raise the budget, or lower hidden_size"
        )
    width = 1 + round((budget - first) / slope)
    return architecture.model_copy(update={"intermediate_size": width}), first + (width - 1) * slope


def make_model(
    folder: Path, architecture: Architecture, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Path:
    """Save a model with random weights; an existing folder is not changed.

    Args:
        folder: Folder of the model; it is complete or absent, also after a kill.
        architecture: The architecture of the model.
        tokenizer: It is saved in the folder as well.
        seed: Seed for the weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from llmctl.gin import register
    from llmctl.models.quiet import quiet_libraries

    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with quiet_libraries():
        register()
        config = build_config(architecture, tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config).to(torch.float32)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    os.replace(part, folder)
    return folder
