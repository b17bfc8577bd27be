"""Streams cut into chunks, the units of work that are done and journaled together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def cut(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size` values; the last one may be shorter."""
    stream = iter(values)
    while chunk := list(islice(stream, size)):
        yield chunk
