"""Forward passes over batches of rows: padding, prefixes computed once, halves where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from llmctl.errors import EngineError
from llmctl.models.image_text import join_pictures
from llmctl.sampling.batches import MIN_SHARED, Group, Row
from llmctl.sampling.common import Closing
from llmctl.sampling.types import SamplerInfo, Usage

log = logging.getLogger(__name__)

T = TypeVar("T")


class ForwardPasses(Closing):
    """What the transformers engine asks of its model; the engine itself fills in the attributes."""

    _model: Any
    tokenizer: Any
    device: torch.device
    max_batch: int
    usage: Usage
    info: SamplerInfo
    _adapters: dict[str, str]  # folder -> PEFT name

    def _in_halves(
        self,
        batch: list[Row],
        run: Callable[[list[Row]], list[T]],
        *,
        n: int = 1,
        alone: Callable[[Row], T] | None = None,
    ) -> list[T]:
        """Run a batch, in halves where memory runs out.

        Args:
            batch: A batch of prompts.
            run: One answer a prompt.
            n: Rows that a prompt takes.
            alone: The answer for a prompt that does not fit alone; None raises.
        """
        try:
            return run(batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if len(batch) == 1:
            if alone is None:
                raise EngineError(f"one prompt of {len(batch[0].ids)} tokens does not fit in memory")
            return [alone(batch[0])]
        half = self._halve(batch, n)
        return [
            *self._in_halves(batch[:half], run, n=n, alone=alone),
            *self._in_halves(batch[half:], run, n=n, alone=alone),
        ]

    def _halve(self, batch: list[Row], n: int) -> int:
        """Keep to half as many rows from now on; where to cut this batch."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.max_batch = max(1, len(batch) * n // 2)
        log.warning("out of memory with %d rows: going on with %d", len(batch) * n, self.max_batch)
        return len(batch) // 2

    def _last_logits_of_groups(self, groups: Sequence[Group]) -> torch.Tensor:
        """Logits (B, V) after each row, what a group begins with computed once.

        The layout of a row is [padding, the group's prefix, padding, the row's rest].
        """
        prefixes = [Row(0, group.rows[0].ids[: group.shared]) for group in groups]
        rests = [row.without(group.shared) for group in groups for row in group.rows]
        cache = DynamicCache(config=self._model.config)
        ids, mask = self._pad(prefixes)  # (G, Tp)
        self._forward(ids, mask, cache)
        sizes = torch.tensor([len(group.rows) for group in groups], device=self.device)
        which = torch.arange(len(groups), device=self.device).repeat_interleave(sizes)  # (B,)
        cache.batch_select_indices(which)
        rest_ids, rest_mask = self._pad(rests)  # (B, Tr)
        both = torch.cat([mask[which], rest_mask], 1)
        whole = torch.cat([ids[which], rest_ids], 1)
        self.usage.cached_tokens += sum(group.shared * (len(group.rows) - 1) for group in groups)
        pictures = join_pictures([row.pictures for row in rests], self.device, rest_ids.shape[1])
        logits: torch.Tensor = self._forward(whole, both, cache, pictures=pictures).logits[:, -1]
        return logits

    def _prefill(
        self, batch: list[Row], n: int
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache | None, dict[str, torch.Tensor]]:
        """Token ids and mask (B n, T), keys and values of as much as can be shared, and pictures, if any.

        The layout of a row is [common prefix, padding, rest]: the padding lies in the middle, so that
        the prefix stands at the same places in every row.
        """
        shared = self._shared_prefix(batch)
        ids, mask = self._pad(batch, shared)
        if not self._can_share or (shared == 0 and n == 1):
            return ids.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), None, {}
        cache = DynamicCache(config=self._model.config)
        if shared:
            self._forward(ids[:1, :shared], mask[:1, :shared], cache)
            cache.batch_repeat_interleave(len(batch))
            self.usage.cached_tokens += shared * (len(batch) - 1)
        if n > 1 and ids.shape[1] - 1 > shared:
            self._forward(ids[:, :-1], mask[:, :-1], cache)
        if n > 1:
            cache.batch_repeat_interleave(n)
        return ids.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), cache, {}

    def _shared_prefix(self, batch: list[Row]) -> int:
        """Tokens that all rows begin with; at least one token of each row is left to compute."""
        if not self._can_share or len(batch) == 1:
            return 0
        first, last = min(row.ids for row in batch), max(row.ids for row in batch)
        limit = min(len(row.ids) for row in batch) - 1
        differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        shared = min(next(differ, limit), limit)
        return shared if shared >= MIN_SHARED else 0

    @property
    def _can_share(self) -> bool:
        """Whether padding in the middle changes nothing: not with windows, nor with stateful adapters."""
        config = self._model.config.get_text_config()
        kinds = getattr(config, "layer_types", None)
        has_window = getattr(config, "sliding_window", None) is not None if kinds is None else False
        is_plain = set(kinds or ()) <= {"full_attention"} and not has_window
        return is_plain and self._adapter_kind() in (None, "LORA")

    def _adapter_kind(self) -> str | None:
        if self.info.adapter is None:
            return None
        return str(self._model.peft_config[self._adapters[self.info.adapter]].peft_type.value)

    def _pad(self, batch: list[Row], shared: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(row.ids) for row in batch)
        pad = self.tokenizer.pad_token_id
        gaps = [width - len(row.ids) for row in batch]
        ids = [[*r.ids[:shared], *[pad] * gap, *r.ids[shared:]] for r, gap in zip(batch, gaps, strict=True)]
        mask = [[1] * shared + [0] * gap + [1] * (width - shared - gap) for gap in gaps]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _positions(self, mask: torch.Tensor) -> torch.Tensor | None:
        """(B, T) positions where the mask leaves out padding; None leaves them to the model."""
        return (mask.cumsum(-1) - 1).clamp(min=0)

    def _forward(
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
        return self._model(
            input_ids=ids[:, done:],
            attention_mask=mask,
            position_ids=None if positions is None else positions[:, done:],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
            **(pictures or {}),
        )

    def _adapter_state(self) -> Any:
        is_bare = self.info.adapter is None and bool(self._adapters)
        return self._model.disable_adapter() if is_bare else nullcontext()


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
