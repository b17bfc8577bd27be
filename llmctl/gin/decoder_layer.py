"""A decoder layer with Sparse-GIN adapters.

The tuner layer wraps a whole decoder layer. Hooks on its modules, which the family's layout names, read the
residual stream and add to it. The hooks run inside the call of the decoder layer, hence inside its gradient
checkpointing: the graph and the GIN are recomputed with the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.cache_utils import Cache

from llmctl.errors import UserError
from llmctl.gin.attention_hook import add_attention_hook, remove_attention_hook
from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.cache import CacheMemory
from llmctl.gin.config import SparseGinConfig
from llmctl.gin.layer import SparseGin
from llmctl.gin.layouts import DecoderLayout, Placement

NOT_MERGEABLE = (
    "a Sparse-GIN adapter cannot be merged: it passes messages between tokens, which no weight of the base "
    "model does; keep the adapter, or call unload() to get the base model back"
)


@dataclass
class _Call:
    """The values that one call of a decoder layer has collected so far."""

    stream: Tensor  # (B, Tq, hidden): x on entry, h once the attention branch has been added
    cache: Cache | None = None
    inputs: AttentionInputs | None = None


class SparseGinLayer(nn.Module, BaseTunerLayer):
    """A decoder layer with Sparse-GIN adapters.

    Args:
        base_layer: The decoder layer.
        layout: The names of its modules.
        num_layers: Number of decoder layers in the model, for the schedule of scales.

    Raises:
        UserError: The layer does not match the layout.
    """

    adapter_layer_names = ("gin_block",)
    other_param_names = ("gin_placement",)

    def __init__(self, base_layer: nn.Module, layout: DecoderLayout, num_layers: int) -> None:
        super().__init__()
        missing = layout.missing(base_layer)
        if missing:
            raise UserError(
                f"{type(base_layer).__name__} lacks {', '.join(missing)}, but Sparse-GIN adds to the "
                "residual stream there: use another family or correct its entry in llmctl.gin.layouts"
            )
        self.base_layer = base_layer
        self.gin_block = nn.ModuleDict()
        self.gin_placement: dict[str, Placement] = {}
        self._layout, self._num_layers = layout, num_layers
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._call: _Call | None = None
        add_attention_hook(self._part(layout.attention), self._receive)
        self._hooks = [
            base_layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._part(layout.attention).register_forward_pre_hook(self._enter_attention, with_kwargs=True),
            self._part(layout.attention_end).register_forward_hook(self._end_attention),
            self._part(layout.mlp_end).register_forward_hook(self._end_mlp),
            base_layer.register_forward_hook(self._leave, always_call=True),
        ]

    def __getattr__(self, name: str) -> Any:
        """Attributes that a model reads from its decoder layers are those of the base layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    @property
    def layer_idx(self) -> int:
        """Index of the decoder layer."""
        attention: Any = self._part(self._layout.attention)
        return attention.layer_idx

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the decoder layer; the hooks add the outputs of the active adapters."""
        if getattr(self, "_is_replica", False):
            raise UserError(
                "the model runs under torch.nn.DataParallel, whose copies share Sparse-GIN's hooks: launch "
                "one process per device with accelerate"
            )
        return self.base_layer(*args, **kwargs)

    def update_layer(self, adapter_name: str, config: SparseGinConfig) -> None:
        """Add an adapter to this layer.

        Raises:
            UserError: The config does not fit the model.
        """
        attention: Any = self._part(self._layout.attention)
        text = attention.config.base
        block = SparseGin(
            config.shape(text.hidden_size, text.num_attention_heads),
            config.rule(),
            config.initial_scale(self.layer_idx, self._num_layers),
            config.train_scale,
            config.detach_graph,
        )
        # The norm is never quantised, so its dtype is the one that the residual stream is computed in.
        reference = next(self._part(self._layout.mlp_start).parameters())
        if next(block.parameters()).device.type != "meta":
            block = block.to(device=reference.device, dtype=reference.dtype)
        self.gin_block[adapter_name] = block
        self.gin_placement[adapter_name] = config.placement
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def release(self) -> nn.Module:
        """Remove the hooks and return the original decoder layer."""
        for hook in self._hooks:
            hook.remove()
        remove_attention_hook(self._part(self._layout.attention))
        return self.base_layer

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: message passing is not a weight of the base model.

        Raises:
            UserError: Always.
        """
        raise UserError(NOT_MERGEABLE)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def _part(self, name: str) -> nn.Module:
        return getattr(self.base_layer, name)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.disable_adapters:
            self._call = _Call(args[0] if args else kwargs["hidden_states"])

    def _enter_attention(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Every family passes the cache to its attention by name, though not always to its decoder layer.
        if self._call is not None:
            self._call.cache = kwargs.get("past_key_values")

    def _receive(self, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.inputs = AttentionInputs.build(
                query, key, mask, kwargs.get("scaling"), kwargs.get("softcap")
            )

    def _end_attention(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Now h = x + output; what is added to the output is added to h."""
        if self._call is None:
            return None
        branch, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        delta = self._delta("before_mlp", self._call.stream + branch)
        if delta is not None:
            branch = branch + delta
        self._call.stream = self._call.stream + branch
        return branch if rest is None else (branch, *rest)

    def _end_mlp(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Now y = h + output; what is added to the output is added to y."""
        if self._call is None:
            return None
        stream = self._call.stream
        for delta in (self._delta("parallel", stream), self._delta("after_mlp", stream + output)):
            if delta is not None:
                output = output + delta
        return output

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._call = None

    def _delta(self, placement: Placement, stream: Tensor) -> Tensor | None:
        """The sum of the outputs of the active adapters of a placement, (B, Tq, hidden); None without one."""
        total: Tensor | None = None
        for name in self.active_adapters:
            if self.gin_placement.get(name) != placement:
                continue
            inputs, memory = self._message_inputs(name)
            delta = self.gin_block[name](stream, inputs, memory)
            total = delta if total is None else total + delta
        return total

    def _message_inputs(self, adapter: str) -> tuple[AttentionInputs, CacheMemory | None]:
        """The queries and keys of this call, and the features of earlier tokens in the cache.

        Raises:
            UserError: Attention used keys of tokens that no cache accounts for.
        """
        if self._call is None or self._call.inputs is None:
            raise UserError(
                "the attention layer did not pass on its queries and keys, but Sparse-GIN needs them: add "
                "the adapter last, after everything that replaces attention modules"
            )
        inputs, cache = self._call.inputs, self._call.cache
        if cache is not None:
            return inputs, CacheMemory(cache, self.layer_idx, adapter, inputs.key.shape[2])
        if inputs.offset:
            raise UserError(
                f"attention used {inputs.offset} keys before the tokens given, but no cache came with them: "
                "Sparse-GIN does not go with prefix or prompt tuning"
            )
        return inputs, None
