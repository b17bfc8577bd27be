"""Forward passes over batches of rows: padding, and prefixes that are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from llmctl.models.image_text import join_pictures
from llmctl.sampling.adapted import AdaptedModel
from llmctl.sampling.batches import MIN_SHARED, Group, Row
from llmctl.sampling.types import Usage


class ForwardPasses:
    """Forward passes of a model over rows of token ids.

    Args:
        adapted: The model with its adapters.
        pad_id: Token id of the padding.
        device: The device of the model.
        usage: Counts the tokens whose keys and values are reused.
    """

    def __init__(self, adapted: AdaptedModel, pad_id: int, device: torch.device, usage: Usage) -> None:
        self.adapted, self.device = adapted, device
        self._pad_id, self._usage = pad_id, usage

    def last_logits_of_groups(self, groups: Sequence[Group]) -> torch.Tensor:
        """Logits (B, V) after each row, what a group begins with computed once.

        The layout of a row is [padding, the group's prefix, padding, the row's rest].
        """
        prefixes = [Row(0, group.rows[0].ids[: group.shared]) for group in groups]
        rests = [row.without(group.shared) for group in groups for row in group.rows]
        cache = DynamicCache(config=self.adapted.model.config)
        ids, mask = self.pad(prefixes)  # (G, Tp)
        self.forward(ids, mask, cache)
        sizes = torch.tensor([len(group.rows) for group in groups], device=self.device)
        which = torch.arange(len(groups), device=self.device).repeat_interleave(sizes)  # (B,)
        cache.batch_select_indices(which)
        rest_ids, rest_mask = self.pad(rests)  # (B, Tr)
        both = torch.cat([mask[which], rest_mask], 1)
        whole = torch.cat([ids[which], rest_ids], 1)
        self._usage.cached_tokens += sum(group.shared * (len(group.rows) - 1) for group in groups)
        pictures = join_pictures([row.pictures for row in rests], self.device, rest_ids.shape[1])
        logits: torch.Tensor = self.forward(whole, both, cache, pictures=pictures).logits[:, -1]
        return logits

    def prefill(
        self, batch: list[Row], n: int
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache | None, dict[str, torch.Tensor]]:
        """Token ids and mask (B n, T), keys and values of as much as can be shared, and pictures, if any.

        The layout of a row is [common prefix, padding, rest]: the padding lies in the middle, so that
        the prefix stands at the same places in every row.
        """
        shared = self._shared_prefix(batch)
        ids, mask = self.pad(batch, shared)
        if not self.can_share or (shared == 0 and n == 1):
            return ids.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), None, {}
        cache = DynamicCache(config=self.adapted.model.config)
        if shared:
            self.forward(ids[:1, :shared], mask[:1, :shared], cache)
            cache.batch_repeat_interleave(len(batch))
            self._usage.cached_tokens += shared * (len(batch) - 1)
        if n > 1 and ids.shape[1] - 1 > shared:
            self.forward(ids[:, :-1], mask[:, :-1], cache)
        if n > 1:
            cache.batch_repeat_interleave(n)
        return ids.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), cache, {}

    def _shared_prefix(self, batch: list[Row]) -> int:
        """Tokens that all rows begin with; at least one token of each row is left to compute."""
        if not self.can_share or len(batch) == 1:
            return 0
        first, last = min(row.ids for row in batch), max(row.ids for row in batch)
        limit = min(len(row.ids) for row in batch) - 1
        differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        shared = min(next(differ, limit), limit)
        return shared if shared >= MIN_SHARED else 0

    @property
    def can_share(self) -> bool:
        """Whether padding in the middle changes nothing: not with windows, nor with stateful adapters."""
        config = self.adapted.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        has_window = getattr(config, "sliding_window", None) is not None if kinds is None else False
        is_plain = set(kinds or ()) <= {"full_attention"} and not has_window
        return is_plain and self.adapted.adapter_kind in (None, "LORA")

    def pad(self, batch: list[Row], shared: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, (B, T) each; the padding of a row follows its first `shared` tokens."""
        width = max(len(row.ids) for row in batch)
        gaps = [width - len(row.ids) for row in batch]
        ids = [
            [*r.ids[:shared], *[self._pad_id] * gap, *r.ids[shared:]]
            for r, gap in zip(batch, gaps, strict=True)
        ]
        mask = [[1] * shared + [0] * gap + [1] * (width - shared - gap) for gap in gaps]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _positions(self, mask: torch.Tensor) -> torch.Tensor | None:
        """(B, T) positions where the mask leaves out padding; None leaves them to the model."""
        return (mask.cumsum(-1) - 1).clamp(min=0)

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: DynamicCache | None,
        keep: int = 1,
        pictures: Mapping[str, torch.Tensor] | None = None,
    ) -> Any:
        """One forward pass over what the cache does not hold yet; logits of the last `keep` positions."""
        done = cache.get_seq_length() if cache is not None else 0
        positions = self._positions(mask)
        return self.adapted.model(
            input_ids=ids[:, done:],
            attention_mask=mask,
            position_ids=None if positions is None else positions[:, done:],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
            **(pictures or {}),
        )
