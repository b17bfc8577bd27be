"""Which adapters vLLM can take, and what rank to reserve for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError
from llmctl.models.description import check_adapter

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM reserves memory for


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk."""

    folder: Path
    rank: int  # the largest of its layers
    key: tuple[
        str, int, int
    ]  # changes with the weights: trained further in its folder, it is another adapter


def fitting_rank(rank: int) -> int:
    """The smallest rank that vLLM can reserve for an adapter of this rank; the largest where none fits."""
    return next((known for known in RANKS if known >= rank), RANKS[-1])


def read_adapter(folder: str | Path, max_rank: int) -> Adapter:
    """Look at an adapter without loading it.

    Args:
        folder: A saved PEFT adapter.
        max_rank: Largest rank that the engine may reserve; 0 where it takes no adapters.

    Raises:
        UserError: No adapter, not LoRA, not safetensors, or a rank that is too large.
    """
    folder = Path(folder)
    check_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    kind = str(config.get("peft_type"))
    if kind.upper() != "LORA":
        raise UserError(f"adapter {folder} is {kind}, but vLLM takes only LORA: take engine transformers")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise UserError(f"adapter {folder} has no adapter_model.safetensors: only safetensors are loaded")
    rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    if rank > max_rank:
        raise UserError(
            f"adapter {folder} has rank {rank}, but max_lora_rank is {max_rank}: "
            f"open with max_lora_rank={fitting_rank(rank)}"
        )
    state = weights.stat()
    return Adapter(folder, rank, (str(folder.resolve()), state.st_mtime_ns, state.st_size))
