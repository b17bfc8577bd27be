"""Train and test of generated problems, disjoint by construction: the problem itself says which it is."""

from __future__ import annotations

import hashlib

from llmctl.errors import UserError

GENERATED_SPLITS = ("train", "test")
_TEST_SHARE = 0.2


def split_of(problem: str) -> str:
    """The split that a generated problem belongs to: a fixed fifth of all problems is "test"."""
    return "test" if digest(problem) < _TEST_SHARE * 2**64 else "train"


def digest(problem: str) -> int:
    """64 bits of a hash that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8], "big")


def stream_seed(*parts: object) -> int:
    """A 32-bit seed from what names a stream of problems, such as (task, split, seed)."""
    return digest("\0".join(map(str, parts))) >> 32


def check_split(split: str, task: str) -> None:
    """Refuse an unknown split.

    Raises:
        UserError: The split is neither "train" nor "test".
    """
    if split not in GENERATED_SPLITS:
        raise UserError(
            f"{task} has no split {split!r}, only {', '.join(GENERATED_SPLITS)}: choose one of these"
        )
