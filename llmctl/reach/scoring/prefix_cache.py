"""Keys and values of a prefix that many candidates share, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from llmctl.reach.scoring.runner import RowRunner

Layers = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (1, H, T, D)


class PrefixCache:
    """The keys and values of the last prefix; a new prefix that begins alike pays only for the rest.

    Layers with a sliding window keep all their keys here, so that a prefix can be cropped; the model's
    own mask still hides what lies outside the window.
    """

    def __init__(self, runner: RowRunner) -> None:
        """`runner` runs the tokens of a prefix, and counts them."""
        self._runner = runner
        self._ids: tuple[int, ...] = ()
        self._layers: Layers = []

    def hold(self, prefix: Sequence[int]) -> int:
        """Compute what is missing of a prefix.

        Returns:
            Bytes of the keys and values of one token; 0 where the prefix is empty.
        """
        self._compute(tuple(prefix))
        return bytes_per_token(self._layers) if prefix else 0

    def expanded(self, prefix: Sequence[int], rows: int) -> DynamicCache:
        """A cache of `rows` equal rows that holds the prefix; the rows share memory until written."""
        self._compute(tuple(prefix))
        return _cache(self._layers, len(prefix), rows)

    def _compute(self, prefix: tuple[int, ...]) -> None:
        shared = _common(prefix, self._ids)
        if shared == len(prefix):
            return
        cache: Any = _cache(self._layers, shared, 1) if shared else DynamicCache()
        ids = torch.tensor([prefix[shared:]], device=self._runner.model.device)
        self._runner.forward(input_ids=ids, cache=cache, keep=1, sequences=0)
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._ids = prefix


class PrefixCount:
    """What a `PrefixCache` would count, without a model."""

    def __init__(self, count: Callable[[int], None]) -> None:
        """`count` is called with the number of tokens that are new."""
        self._count = count
        self._ids: tuple[int, ...] = ()

    def note(self, prefix: tuple[int, ...]) -> None:
        """Count what of a prefix is not known yet, and take it as known from now on."""
        shared = _common(prefix, self._ids)
        if shared < len(prefix):
            self._count(len(prefix) - shared)
            self._ids = prefix


def bytes_per_token(layers: Layers) -> int:
    """Bytes of the keys and values of one token, over all layers."""
    return sum(
        part.element_size() * part.shape[1] * part.shape[3]
        for keys, values in layers
        for part in (keys, values)
    )


def joined(prefixes: Sequence[Layers], index: Tensor) -> DynamicCache:
    """A cache whose rows take their columns from several prefixes.

    Args:
        prefixes: Keys and values by layer, each (1, H, T, D) with a T of its own.
        index: (B, P) places in the prefixes laid end to end.
    """
    cache = DynamicCache()
    for parts in zip(*prefixes, strict=True):
        keys, values = (torch.cat(part, 2)[0][:, index].transpose(0, 1) for part in zip(*parts, strict=True))
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values  # (B, H, P, D)
        cache.layers.append(layer)
    return cache


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with."""
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    return shared


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
