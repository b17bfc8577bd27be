"""Rows of a call to the transformers engine, and how they are put together into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.models.image_text import PER_TOKEN

MIN_SHARED = 8  # tokens; a shorter common prefix is not worth a forward pass of its own


@dataclass(frozen=True)
class Row:
    """One conversation of a call."""

    number: int  # its place in the call
    ids: tuple[int, ...]
    seed: int = 0
    pictures: Mapping[str, Any] = field(default_factory=dict)  # tensors of its pictures, by argument
    text_only: int | None = None  # tokens before its first picture; None where it has none

    @property
    def sharable(self) -> int:
        """Tokens at its beginning that may be computed without the rest: all but one, none of a picture."""
        return len(self.ids) - 1 if self.text_only is None else min(self.text_only, len(self.ids) - 1)

    def without(self, tokens: int) -> Row:
        """What is left of it behind so many tokens."""
        pictures = {n: v[:, tokens:] if n in PER_TOKEN else v for n, v in self.pictures.items()}
        return Row(self.number, self.ids[tokens:], self.seed, pictures)


@dataclass(frozen=True)
class Group:
    """Rows that begin alike."""

    rows: tuple[Row, ...]
    shared: int  # tokens that they begin with


def by_length(rows: Sequence[Row], samples: int, new: int, max_rows: int, max_tokens: int) -> list[list[Row]]:
    """Rows of like length together, longest first, so that a lack of memory shows at once.

    Args:
        rows: In any order.
        samples: Rows of a batch that each one takes.
        new: Tokens that come to each.
        max_rows: Maximum number of rows per batch; each sample is a row.
        max_tokens: Maximum number of tokens per batch, new ones included; one row may be longer.
    """
    batches: list[list[Row]] = []
    batch: list[Row] = []
    for row in sorted(rows, key=lambda r: (bool(r.pictures), -len(r.ids), r.ids)):
        longest = len(batch[0].ids) if batch else len(row.ids)
        size = (len(batch) + 1) * samples
        is_full = size > max_rows or size * (longest + new) > max_tokens
        # some models want pictures in every row of a batch, or in none
        if batch and (is_full or bool(batch[0].pictures) != bool(row.pictures)):
            batches.append(batch)
            batch = []
        batch.append(row)
    return [*batches, batch] if batch else batches


def by_prefix(rows: Sequence[Row], max_rows: int, max_tokens: int) -> list[list[Group]]:
    """Rows with a common beginning together, so that it is computed once.

    Args:
        rows: In any order.
        max_rows: Maximum number of rows per batch.
        max_tokens: Maximum number of tokens per batch, with padding.

    Returns:
        Batches of groups; a group of more rows than a batch may have is divided.
    """
    batches: list[list[Group]] = []
    batch: list[Group] = []
    groups = sorted(find_groups(rows, max_rows), key=lambda g: -max(len(r.ids) for r in g.rows))
    for group in groups:
        both = [*batch, group]
        size = sum(len(g.rows) for g in both)
        width = max(len(row.ids) for g in both for row in g.rows)
        # likewise, and a group that shares nothing would only pad the others' beginnings
        is_alike = not batch or _kind(batch[0]) == _kind(group)
        if batch and (size > max_rows or size * width > max_tokens or not is_alike):
            batches.append(batch)
            batch = []
        batch.append(group)
    return [*batches, batch] if batch else batches


def find_groups(rows: Sequence[Row], max_rows: int) -> Iterator[Group]:
    """Rows that begin alike, in the order of their tokens.

    A row joins where it has most of what the group has in common: rows of two users begin with the same
    instruction, but are better two groups.
    """
    members: list[Row] = []
    shared = 0
    for row in sorted(rows, key=lambda r: (bool(r.pictures), r.ids)):
        if members:
            common = min(common_length(members[-1].ids, row.ids), row.sharable, shared)
            is_alike = bool(members[0].pictures) == bool(row.pictures)
            if is_alike and common >= max(MIN_SHARED, shared / 2) and len(members) < max_rows:
                members.append(row)
                shared = common
                continue
            yield _group(members, shared)
        members, shared = [row], row.sharable
    if members:
        yield _group(members, shared)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    differ = (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))


def _group(rows: Sequence[Row], shared: int) -> Group:
    return Group(tuple(rows), shared if len(rows) > 1 else 0)


def _kind(group: Group) -> tuple[bool, bool]:
    return bool(group.rows[0].pictures), group.shared > 0
