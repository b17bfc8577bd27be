"""The PEFT tuner of Sparse-GIN: it wraps the decoder layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers import PreTrainedModel

from llmctl.errors import UserError
from llmctl.gin.decoder_layer import NOT_MERGEABLE, SparseGinLayer
from llmctl.gin.layouts import layout_of
from llmctl.gin.peft_type import PREFIX

_BASE_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads")


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
            UserError: The family is not known, a layer index is beyond the model, or the adapter was trained
                on a model of other sizes.
        """
        text = self._text_config(self.model)
        layout = layout_of(text.model_type)
        sizes = {name: getattr(text, name) for name in _BASE_SIZES}
        peft_config.check_base(sizes)
        peft_config.base_sizes = sizes
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

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT enters this context around each call of the model; here it only checks the arguments.

        Raises:
            UserError: `adapter_names` is given.
        """
        if kwargs.get("adapter_names") is not None:
            raise UserError(
                "adapter_names is given, but Sparse-GIN applies the active adapters to the whole batch: call "
                "set_adapter, and run the rows of each adapter in a batch of their own"
            )
        yield

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a weighted sum of two GINs' weights is not the weighted sum of their outputs.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "add_weighted_adapter is not possible with Sparse-GIN, because the output of a GIN is not linear "
            "in its weights: activate several with base_model.set_adapter([...]), which adds their outputs"
        )

    def _check_merge_allowed(self) -> None:
        """Refuse before anything is changed.

        Raises:
            UserError: Always.
        """
        raise UserError(NOT_MERGEABLE)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Keys of saved weights: `...gin_block.<adapter>.down.weight` without the adapter's name."""
        return key.replace(f".gin_block.{adapter_name}.", ".gin_block.", 1)
