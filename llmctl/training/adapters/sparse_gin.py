"""Sparse-GIN (arXiv 2501.02393): message passing over each layer's own attention graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.training.adapters.adapter import Ablation, AdapterMethod, SizedAdapter

if TYPE_CHECKING:
    from llmctl.training.config import TrainSettings


def make_settings(**options: Any) -> Any:
    """The adapter's PEFT configuration, which is its settings class as well."""
    from llmctl.gin import SparseGinConfig

    return SparseGinConfig(**({"task_type": "CAUSAL_LM"} | options))


def match_width(model_config: Any, train: TrainSettings, budget: int) -> SizedAdapter:
    """The width whose number of trained parameters is nearest to a budget.

    Raises:
        UserError: The smallest width takes more than the budget, or `gin.layers` is beyond the model.
    """
    from llmctl.gin import solve_width

    match = solve_width(model_config, _checked(model_config, train), budget)
    settings = train.model_copy(update={"gin": train.gin | {"width": match.size}})
    return SizedAdapter(f"width {match.size}", match.parameters, settings)


def count_default(model_config: Any, train: TrainSettings) -> int:
    """Trained parameters at the default width.

    Raises:
        UserError: `gin.layers` is beyond the model.
    """
    from llmctl.gin import count_sparse_gin

    return count_sparse_gin(model_config, _checked(model_config, train))


def _checked(model_config: Any, train: TrainSettings) -> Any:
    gin = SPARSE_GIN.options(train)
    layers = model_config.get_text_config(decoder=True).num_hidden_layers
    if gin.layers is not None and max(gin.layers) >= layers:
        raise UserError(
            f"train.gin.layers has {max(gin.layers)}, but the model has {layers} layers, counted from 0: "
            f"choose at most {layers - 1}"
        )
    return gin


SPARSE_GIN = AdapterMethod(
    name="sparse-gin",
    title="Sparse-GIN",
    description="Train a small graph network on each layer's own attention graph.",
    settings=make_settings,
    make_config=lambda options, model: options,
    options_key="gin",
    peft_type="SPARSE_GIN",
    match_size=match_width,
    default_budget=count_default,
    size_option="width",
    ablations=(Ablation("self_loop", "self-loops only", {"self_loops": "only"}),),
)
