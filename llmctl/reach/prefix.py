"""Keys and values of a prefix that many candidates share, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class PrefixCache:
    """The keys and values of the last prefix; a new prefix that begins alike pays only for the rest.

    Layers with a sliding window keep all their keys here, so that a prefix can be cropped; the model's
    own mask still hides what lies outside the window.
    """

    def __init__(self, model: Any, count: Callable[[int], None]) -> None:
        """`count` is called with the tokens that went through the model."""
        self._model = model
        self._count = count
        self._ids: tuple[int, ...] = ()
        self._layers: list[tuple[Tensor, Tensor]] = []  # keys and values, (1, H, T, D)

    def expanded(self, prefix: Sequence[int], rows: int) -> DynamicCache:
        """A cache of `rows` equal rows that holds the prefix; the rows share memory until written."""
        self._compute(tuple(prefix))
        return _cache(self._layers, len(prefix), rows)

    def _compute(self, prefix: tuple[int, ...]) -> None:
        shared = 0
        while shared < min(len(prefix), len(self._ids)) and prefix[shared] == self._ids[shared]:
            shared += 1
        if shared == len(prefix):
            return
        cache: Any = _cache(self._layers, shared, 1) if shared else DynamicCache()
        ids = torch.tensor([prefix[shared:]], device=self._model.device)
        with torch.inference_mode():
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._count(len(prefix) - shared)
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._ids = prefix


def _cache(layers: Sequence[tuple[Tensor, Tensor]], length: int, rows: int) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys = keys[:, :, :length].expand(rows, -1, -1, -1)
        layer.values = values[:, :, :length].expand(rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache


def supports_prefix(model: Any) -> bool:
    """Whether all layers of a model keep plain keys and values (no recurrent or compressed state)."""
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in plain for layer in layers)
