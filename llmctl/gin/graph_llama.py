"""Graph-Llama: a Llama-like decoder with GIN- or PNA-attention, an ordinary transformers model.

    model = GraphLlamaForCausalLM(GraphLlamaConfig(hidden_size=256, graph_attention="gin"))
    model.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)

The last line needs `llmctl.gin.register()`, or any import from `llmctl.gin`, beforehand.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)
from transformers import initialization as init
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaPreTrainedModel

from llmctl.errors import UserError
from llmctl.gin.attention import GinAttention, GraphAttention, HeadwiseLinear, PnaAttention
from llmctl.gin.edges import EdgeRule, EdgeThreshold, EdgeWeights

MODEL_TYPE = "graph_llama"
ATTENTIONS: dict[str, type[GraphAttention]] = {"gin": GinAttention, "pna": PnaAttention}


class GraphLlamaConfig(LlamaConfig):
    """A Llama config with the options of graph attention.

    Attributes:
        graph_attention: "gin" or "pna".
        graph_weights: "softmax", or "softplus" (beta 10, not normalised).
        graph_sharpening: Whether each head learns the sharpness of its scores.
        graph_threshold_mode: "none", "soft", "binary", "top_k" or "flow".
        graph_threshold: Weight that an edge needs (soft, binary), or share of a row's weight (flow).
        graph_slope: Slope of the soft threshold.
        graph_top_k: Number of edges that each row keeps with "top_k".
        graph_differential: Whether edges are the difference of two sets of queries and keys.
        graph_blend: Whether each head learns a blend with plain attention.
        graph_mlp_multiplier: Width of the per-head MLP, relative to the head width.
        graph_dropout: Dropout in the per-head MLP.
        pna_reference_degree: Number of edges at which PNA's degree scalers are 1.

    Raises (on construction):
        UserError: A field is out of its range.
    """

    model_type = MODEL_TYPE

    graph_attention: str = "gin"
    graph_weights: str = "softmax"
    graph_sharpening: bool = False
    graph_threshold_mode: str = "none"
    graph_threshold: float = 0.1
    graph_slope: float = 10.0
    graph_top_k: int = 8
    graph_differential: bool = False
    graph_blend: bool = False
    graph_mlp_multiplier: float = 1.0
    graph_dropout: float = 0.0
    pna_reference_degree: float = 64.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: A field is out of its range.
        """
        super().__post_init__(**kwargs)
        choices: dict[str, tuple[str, ...]] = {
            "graph_attention": tuple(ATTENTIONS),
            "graph_weights": get_args(EdgeWeights),
            "graph_threshold_mode": get_args(EdgeThreshold),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise UserError(
                    f"{field} is {getattr(self, field)!r}, but it must be one of {', '.join(allowed)}"
                )
        if not 0 <= self.graph_dropout < 1:
            raise UserError(
                f"graph_dropout is {self.graph_dropout}, but it must lie in [0, 1): 0 turns it off"
            )
        for field in ("graph_slope", "graph_top_k", "graph_mlp_multiplier", "pna_reference_degree"):
            if not getattr(self, field) > 0:
                raise UserError(f"{field} is {getattr(self, field)}, but it must be above 0")
        if self.graph_threshold_mode == "flow" and not 0 < self.graph_threshold <= 1:
            raise UserError(
                f"graph_threshold is {self.graph_threshold}, but with 'flow' it is a share of a row: "
                "choose it in (0, 1]"
            )
        if self.num_attention_heads * (self.head_dim or 0) != self.hidden_size:
            raise UserError(
                f"{self.num_attention_heads} heads of width {self.head_dim} do not fill hidden_size "
                f"{self.hidden_size}, and graph attention has no output projection: leave head_dim out"
            )

    def edge_rule(self) -> EdgeRule:
        """How scores become edges, as the tensor code reads it."""
        return EdgeRule(
            weights=self.graph_weights,  # type: ignore[arg-type]
            threshold_mode=self.graph_threshold_mode,  # type: ignore[arg-type]
            threshold=self.graph_threshold,
            slope=self.graph_slope,
            top_k=self.graph_top_k,
        )

    def graph_width(self) -> int:
        """M, the width of the per-head MLP."""
        return max(1, round(self.graph_mlp_multiplier * (self.head_dim or 0)))


class GraphLlamaPreTrainedModel(LlamaPreTrainedModel):
    """What the Graph-Llama classes share: eager masks, and how their parameters start."""

    config_class = GraphLlamaConfig
    _supports_sdpa = False  # so the mask is always given, and always additive
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_compile_fullgraph = False
    _can_record_outputs = {"hidden_states": LlamaDecoderLayer, "attentions": GraphAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HeadwiseLinear):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        if isinstance(module, GraphAttention):
            for name, parameter in module.named_parameters(recurse=False):
                (init.ones_ if name == "norm_weight" else init.zeros_)(parameter)


class GraphLlamaModel(GraphLlamaPreTrainedModel, LlamaModel):
    """The decoder without its language-model head."""

    def __init__(self, config: GraphLlamaConfig) -> None:
        super().__init__(config)
        attention = ATTENTIONS[config.graph_attention]
        for index, layer in enumerate(self.layers):
            layer.self_attn = attention(config, index)
        self.post_init()


class GraphLlamaForCausalLM(GraphLlamaPreTrainedModel, LlamaForCausalLM):
    """The decoder with its language-model head."""

    def __init__(self, config: GraphLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = GraphLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def register_graph_llama() -> None:
    """Make transformers' auto classes know Graph-Llama."""
    AutoConfig.register(MODEL_TYPE, GraphLlamaConfig, exist_ok=True)
    AutoModel.register(GraphLlamaConfig, GraphLlamaModel, exist_ok=True)
    AutoModelForCausalLM.register(GraphLlamaConfig, GraphLlamaForCausalLM, exist_ok=True)
