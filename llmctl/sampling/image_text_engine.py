"""The transformers engine for models that read pictures: LLaVA, LLaVA-NeXT, Qwen-VL, SmolVLM and others.

A picture is a part of a message: `{"type": "image", "image": <PIL image>}`. It goes to the model's own
processor as it is, so pictures of one batch are never padded to a common size here. Everything else is the
plain engine's: seeds, adapters, halving of batches, prefixes that are computed once (up to a picture).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from llmctl.messages import Conversation
from llmctl.models.image_text import encode, image_token_of, join_pictures, render_with_pictures
from llmctl.models.loading import Loaded, load_image_text
from llmctl.models.picture_parts import split_pictures
from llmctl.sampling.adapted import AdaptedModel
from llmctl.sampling.batches import Row
from llmctl.sampling.forward import ForwardPasses
from llmctl.sampling.transformers_engine import TransformersSampler

# Models whose positions count along the row, as in a text, and whose tokens attend to earlier tokens only;
# others number the tokens of a picture by place, or let them attend to one another.
_PLAIN_POSITIONS = ("llava", "llava_next", "smolvlm", "idefics3", "internvl")


class ImageTextSampler(TransformersSampler):
    """Samples with a vision-language model in this process; for arguments see `TransformersSampler`."""

    def _load(self, model: str | Path, **options: Any) -> Loaded:
        loaded = load_image_text(model, **options)
        self.processor = loaded.processor
        self._image_token = image_token_of(self.processor)
        return loaded

    def _row(self, number: int, conversation: Conversation, seed: int) -> Row:
        messages, pictures = split_pictures(conversation, self._image_token)
        ids, tensors = encode(self.processor, render_with_pictures(self.processor, messages), pictures)
        if not pictures:
            return Row(number, ids, seed)
        mark = self.processor.tokenizer.convert_tokens_to_ids(self._image_token)
        before = ids.index(mark) if mark in ids else 0
        kept = {name: self._as_weights(value) for name, value in tensors.items()}
        return Row(number, ids, seed, kept, before)

    def _as_weights(self, tensor: torch.Tensor) -> torch.Tensor:
        """Pictures in the dtype of the weights; counts and masks as they are."""
        return tensor.to(self._adapted.model.dtype) if tensor.is_floating_point() else tensor

    def _forward_passes(self, adapted: AdaptedModel) -> ForwardPasses:
        return ImageTextPasses(adapted, self.tokenizer.pad_token_id, self.device, self.usage)


class ImageTextPasses(ForwardPasses):
    """Forward passes over rows that may hold pictures; for arguments see `ForwardPasses`."""

    def prefill(
        self, batch: list[Row], n: int
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache | None, dict[str, torch.Tensor]]:
        """As for text; a batch with pictures is computed whole, each of n samples by itself."""
        if not batch[0].pictures:
            return super().prefill(batch, n)
        rows = [row for row in batch for _ in range(n)]
        ids, mask = self.pad(rows)
        return ids, mask, None, join_pictures([row.pictures for row in rows], self.device, ids.shape[1])

    @property
    def can_share(self) -> bool:
        """As for text, and only where positions count along the row."""
        return self._counts_plainly and super().can_share

    def _positions(self, mask: torch.Tensor) -> torch.Tensor | None:
        return super()._positions(mask) if self._counts_plainly else None

    @property
    def _counts_plainly(self) -> bool:
        return self.adapted.model.config.model_type in _PLAIN_POSITIONS
