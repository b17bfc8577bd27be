"""QLoRA (Dettmers et al., arXiv 2305.14314): LoRA on a base model in 4 bits."""

from dataclasses import replace

from llmctl.training.adapters.adapter import BaseWeights
from llmctl.training.adapters.lora import LORA

QLORA = replace(
    LORA,
    name="qlora",
    title="QLoRA",
    description="LoRA on a base model whose weights are quantized to 4 bits (NF4), for less memory.",
    base=BaseWeights(quantization="nf4"),
    # Small updates vanish in bfloat16, which is slow on CPUs as well.
    has_float32_weights=True,
    is_reference=False,
    # Comparisons measure all arms on the same base weights.
    match_size=None,
)
