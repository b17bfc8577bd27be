"""A set of 64-bit digests in 8 bytes a place: a tenth of what a `set` of integers takes."""

from __future__ import annotations

from array import array

_FULL = 0.7  # share of places in use at which the table doubles


class Seen:
    """Digests that have been met; open addressing with linear probing."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 64))  # 0 marks a free place
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, digest: int) -> bool:
        """Put a digest in; whether it is new.

        Args:
            digest: In [0, 2**64); 0 and 1 count as one and the same.
        """
        place = self._find(self._table, digest or 1)
        if self._table[place]:
            return False
        self._table[place] = digest or 1
        self._count += 1
        if self._count > _FULL * len(self._table):
            self._grow()
        return True

    @staticmethod
    def _find(table: array[int], digest: int) -> int:
        mask = len(table) - 1
        place = digest & mask
        while table[place] not in (0, digest):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = self._table
        self._table = array("Q", bytes(8 * 2 * len(old)))
        for digest in old:
            if digest:
                self._table[self._find(self._table, digest)] = digest
