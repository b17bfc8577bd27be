"""Incremental generation: the earlier tokens' features, kept in the key/value cache.

A GIN aggregates the *features* of earlier tokens, which no key/value cache keeps. They are kept here inside
the cache's own layers: on first use a plain dynamic layer becomes its subclass with a memory, and each
operation on the keys and values (beam reordering, cropping, repeating or selecting sequences, sliding
windows, offloading, resetting, copying) is applied to the memory as well. So the memory belongs to one cache,
two interleaved generations cannot mix, and it is freed with the cache. Any other cache is refused.
"""

from __future__ import annotations

from typing import Any

from torch import LongTensor, Tensor, cat
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from llmctl.errors import UserError


class _WithMemory(CacheLayerMixin):
    """Mixin: a dynamic cache layer that also keeps features, (B, stored tokens, W) for each name."""

    _layer_type = None  # never registered as a layer type of its own
    gin_memory: dict[tuple[str, int], Tensor]

    def _stored(self) -> int:
        return 0 if self.keys is None else self.keys.shape[-2]

    def _each(self, change: Any) -> None:
        self.gin_memory = {name: change(nodes) for name, nodes in self.gin_memory.items()}

    def extend_memory(self, name: tuple[str, int], nodes: Tensor, visible: int) -> Tensor:
        """Append new tokens and return the features of the visible ones; call it after `update`.

        Args:
            name: Adapter and round.
            nodes: (B, Tq, W), features of the new tokens.
            visible: Tk, the number of keys that attention just used.

        Returns:
            (B, Tk, W).

        Raises:
            UserError: The cache holds tokens that this adapter has not seen.
        """
        past = self.gin_memory.get(name)
        known = nodes if past is None else cat([past.to(nodes.device), nodes], dim=1)
        stored = self._stored()
        if known.shape[1] != max(visible, stored):
            raise UserError(
                f"the cache holds {max(visible, stored) - nodes.shape[1]} earlier tokens, but adapter "
                f"{name[0]!r} saw {known.shape[1] - nodes.shape[1]} of them: start from an empty cache "
                "with this adapter active"
            )
        self.gin_memory[name] = known[:, known.shape[1] - stored :]
        return known[:, known.shape[1] - visible :]

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        """Reorder the sequences for beam search."""
        super().reorder_cache(beam_idx)
        self._each(lambda nodes: nodes.index_select(0, beam_idx.to(nodes.device)))

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens."""
        before = self.get_seq_length()
        super().crop(tokens_to_remove)  # type: ignore[misc]
        removed, stored = before - self.get_seq_length(), self._stored()
        self._each(
            lambda nodes: nodes[:, : nodes.shape[1] - removed][:, -stored:] if stored else nodes[:, :0]
        )

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence."""
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._each(lambda nodes: nodes.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences."""
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._each(lambda nodes: nodes[indices.to(nodes.device), ...])

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.gin_memory = {}

    def offload(self) -> None:
        """Move to the CPU."""
        super().offload()
        self._each(lambda nodes: nodes.to("cpu", non_blocking=True))


class MemoryLayer(_WithMemory, DynamicLayer):
    """A growing cache layer with a memory."""


class SlidingMemoryLayer(_WithMemory, DynamicSlidingWindowLayer):
    """A sliding-window cache layer with a memory."""


_WITH_MEMORY: dict[type, type[_WithMemory]] = {
    DynamicLayer: MemoryLayer,
    DynamicSlidingWindowLayer: SlidingMemoryLayer,
}


class CacheMemory:
    """One adapter's `Memory` in one layer of a cache.

    Args:
        cache: The cache that attention has just updated.
        layer_idx: Index of the decoder layer.
        adapter: Name of the adapter.
        visible: Tk, the number of keys that attention used.

    Raises:
        UserError: The cache is of a kind that cannot keep the memory.
    """

    def __init__(self, cache: Cache, layer_idx: int, adapter: str, visible: int) -> None:
        layer: Any = cache.layers[layer_idx] if hasattr(cache, "layers") else cache
        if type(layer) in _WITH_MEMORY:
            layer.__class__ = _WITH_MEMORY[type(layer)]
            layer.gin_memory = {}
        if not isinstance(layer, _WithMemory):
            raise UserError(
                f"the cache is a {type(cache).__name__} of {type(layer).__name__}, but Sparse-GIN keeps "
                "earlier tokens in a DynamicCache only: leave cache_implementation out or set use_cache=False"
            )
        self._layer, self._adapter, self._visible = layer, adapter, visible

    def extend(self, level: int, nodes: Tensor) -> Tensor:
        """Append new tokens' features (B, Tq, W) of a round and return those of all keys, (B, Tk, W)."""
        return self._layer.extend_memory((self._adapter, level), nodes, self._visible)
