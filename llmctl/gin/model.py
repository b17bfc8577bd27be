"""Where the GINs go: a decoder layer with adapters, and the PEFT tuner that puts them in place.

The tuner layer wraps a whole decoder layer, and hooks on its modules (named by the family's layout) read the
residual stream and add to it. Hooks run inside the decoder layer's own call, hence inside its gradient
checkpointing: the graph and the GIN are recomputed with the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from llmctl.errors import UserError
from llmctl.gin.attention_hook import close_tap, open_tap
from llmctl.gin.cache import CacheMemory
from llmctl.gin.config import SparseGinConfig
from llmctl.gin.graph import AttentionInputs
from llmctl.gin.layer import SparseGin
from llmctl.gin.layouts import Layout, Placement, layout_of
from llmctl.gin.peft_type import PREFIX

_NOT_MERGEABLE = (
    "a Sparse-GIN adapter cannot be merged: it passes messages between tokens, which no weight of the base "
    "model does; keep the adapter, or call unload() to get the base model back"
)


@dataclass
class _Call:
    """What one call of a decoder layer has gathered so far."""

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

    def __init__(self, base_layer: nn.Module, layout: Layout, num_layers: int) -> None:
        super().__init__()
        missing = layout.missing(base_layer)
        if missing:
            raise UserError(
                f"{type(base_layer).__name__} lacks {', '.join(missing)}, but Sparse-GIN adds to the "
                "residual stream there: use another family or mend its entry in llmctl.gin.layouts"
            )
        self.base_layer = base_layer
        self.gin_block = nn.ModuleDict()
        self.gin_placement: dict[str, Placement] = {}
        self._layout, self._num_layers = layout, num_layers
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._call: _Call | None = None
        open_tap(self._part(layout.attention), self._receive)
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
        """Run the decoder layer; the hooks add what the active adapters say."""
        if getattr(self, "_is_replica", False):
            raise UserError(
                "the model runs under torch.nn.DataParallel, whose copies share Sparse-GIN's hooks: launch "
                "one process a device with accelerate"
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
        """Take the hooks off and return the decoder layer as it was."""
        for hook in self._hooks:
            hook.remove()
        close_tap(self._part(self._layout.attention))
        return self.base_layer

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: message passing is not a weight of the base model.

        Raises:
            UserError: Always.
        """
        raise UserError(_NOT_MERGEABLE)

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
        """The sum of what the active adapters of a placement add, (B, Tq, hidden); None without one."""
        total: Tensor | None = None
        for name in self.active_adapters:
            if self.gin_placement.get(name) != placement:
                continue
            inputs, memory = self._heard(name)
            delta = self.gin_block[name](stream, inputs, memory)
            total = delta if total is None else total + delta
        return total

    def _heard(self, adapter: str) -> tuple[AttentionInputs, CacheMemory | None]:
        """This call's queries and keys, and where the earlier tokens are.

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


class SparseGinModel(BaseTuner):
    """The PEFT tuner of Sparse-GIN; made by `get_peft_model`, `PeftModel.from_pretrained` and the like."""

    prefix = PREFIX
    tuner_layer_cls = SparseGinLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _text_config(self, model: nn.Module) -> Any:
        if not isinstance(model, PreTrainedModel):
            raise UserError(
                f"the model is a {type(model).__name__}, but Sparse-GIN needs a transformers decoder: load "
                "it with AutoModelForCausalLM"
            )
        return model.config.get_text_config(decoder=True)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        """Turn `layers` into names of decoder layers.

        Raises:
            UserError: The family is not known, or a layer index is beyond the model.
        """
        text = self._text_config(self.model)
        layout = layout_of(text.model_type)
        highest = max(peft_config.layers or [0])
        if highest >= text.num_hidden_layers:
            raise UserError(
                f"layers names layer {highest}, but the model has {text.num_hidden_layers}: use indices up "
                f"to {text.num_hidden_layers - 1}"
            )
        if peft_config.target_modules is None:
            peft_config.target_modules = layout.pattern(peft_config.layers)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if not isinstance(target, SparseGinLayer):
            text = self._text_config(self.model)
            target = SparseGinLayer(target, layout_of(text.model_type), text.num_hidden_layers)
            setattr(parent, target_name, target)
        target.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            target.gin_block[adapter_name].requires_grad_(False)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Put a decoder layer back in its place; a decoder layer has no weight of its own to copy."""
        setattr(parent, child_name, child.release() if isinstance(child, SparseGinLayer) else new_module)

    def _check_merge_allowed(self) -> None:
        """Refuse before anything is changed.

        Raises:
            UserError: Always.
        """
        raise UserError(_NOT_MERGEABLE)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Keys of saved weights: `...gin_block.<adapter>.down.weight` without the adapter's name."""
        return key.replace(f".gin_block.{adapter_name}.", ".gin_block.", 1)
