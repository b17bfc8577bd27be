"""A loaded model and the PEFT adapters that were added to it, of which one or none is in use."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llmctl.models.loading import attach_adapter


class AdaptedModel:
    """A model whose adapter can be exchanged while its own weights stay loaded.

    Args:
        model: A loaded model, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._names: dict[str, str] = {}  # folder -> PEFT name
        self._active: str | None = None  # folder

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model can read."""
        size: int = self.model.get_input_embeddings().weight.shape[0]
        return size

    @property
    def adapter_kind(self) -> str | None:
        """PEFT's name of the method of the adapter in use ("LORA"); None for the bare model."""
        if self._active is None:
            return None
        return str(self.model.peft_config[self._names[self._active]].peft_type.value)

    def use(self, folder: str | None) -> None:
        """Use the adapter in a folder from now on, or none.

        Raises:
            UserError: The adapter cannot be loaded.
        """
        if folder is not None and folder not in self._names:
            name = f"a{len(self._names)}"
            self.model = attach_adapter(self.model, folder, name=name).eval()
            self._names[folder] = name
        if folder is not None:
            self.model.set_adapter(self._names[folder])
        self._active = folder

    def applied(self) -> AbstractContextManager[Any]:
        """A context in which the model computes with the adapter in use, or without any."""
        is_bare = self._active is None and bool(self._names)
        context: AbstractContextManager[Any] = self.model.disable_adapter() if is_bare else nullcontext()
        return context
