"""LoRA (Hu et al., arXiv 2106.09685): low-rank updates of linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from llmctl.training.adapters.adapter import AdapterMethod, SizedAdapter
from llmctl.training.frozen import FrozenSettings

if TYPE_CHECKING:
    from llmctl.training.config import TrainSettings


class LoraSettings(FrozenSettings):
    """Options of low-rank adapters, for the adapters lora and qlora."""

    r: int = Field(default=16, ge=1)
    """Rank of each update."""
    alpha: int = Field(default=32, ge=1)
    """Scale: an update is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability on the inputs of the adapter."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Name suffixes of the layers to adapt, a regular expression for whole names, or "all-linear": every
    linear layer except the output head."""


def make_lora_config(options: LoraSettings, model: Any) -> Any:
    """The PEFT configuration; in a vision-language model the vision encoder keeps its weights."""
    from peft import LoraConfig

    modules = options.target_modules
    if model.config is not model.config.get_text_config():
        from llmctl.training.data.images import language_targets

        modules = language_targets(model, modules)
    return LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


def match_rank(model_config: Any, train: TrainSettings, budget: int) -> SizedAdapter:
    """The rank whose number of trained parameters is nearest to a budget.

    The scale of an update, alpha / rank, stays what the settings say, whatever the rank.

    Raises:
        UserError: Rank 1 takes more than the budget, or a name matches no linear layer.
    """
    from llmctl.gin import solve_rank
    from llmctl.gin.matched import linear_targets

    lora = train.lora
    targets = lora.target_modules
    names = linear_targets(model_config) if isinstance(targets, str) else list(targets)
    match = solve_rank(model_config, budget, names)
    alpha = max(1, round(match.size * lora.alpha / lora.r))
    shape = LoraSettings(r=match.size, alpha=alpha, dropout=lora.dropout, target_modules=tuple(names))
    return SizedAdapter(f"rank {match.size}", match.parameters, train.model_copy(update={"lora": shape}))


LORA = AdapterMethod(
    name="lora",
    title="LoRA",
    description="Train low-rank updates of the linear layers; the base model stays as it is.",
    settings=LoraSettings,
    make_config=make_lora_config,
    options_key="lora",
    peft_type="LORA",
    match_size=match_rank,
    is_reference=True,
)
