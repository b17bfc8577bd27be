"""Simulated users: their preferred colour changes in phases, their preferred categories do not."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmctl.demo.attributes import CATEGORIES, COLOURS, Look
from llmctl.sampling.common import derive_seed

_START = 1_672_531_200  # 2023-01-01, in seconds since 1970
_DAY = 86_400


@dataclass(frozen=True)
class TasteSettings:
    """How users choose. By default, the next item depends most on colour, which titles do not name."""

    phases: tuple[tuple[int, int], ...] = ((4, 5), (3, 3), (2, 3))
    """Fewest and most items per phase of taste; the target comes after those of the last phase."""
    stray: float = 0.1
    """Probability that an item of the history (never the target) is chosen without regard to colour."""
    favourites: int = 4
    """Number of categories that a user prefers in every phase."""
    loyalty: float = 0.7
    """Probability that an item is of one of these categories."""


@dataclass(frozen=True)
class TastePhase:
    """A part of a history in which one colour is preferred."""

    colour: str
    start: int  # position of its first item in the user's whole sequence
    length: int  # number of items, in the last phase with the target


@dataclass(frozen=True)
class DemoUser:
    """The ground truth about a user: tastes and choices."""

    user: str
    favourites: tuple[str, ...]  # categories
    phases: tuple[TastePhase, ...]  # the oldest first
    items: tuple[str, ...]  # T, the target last
    timestamps: tuple[int, ...]  # T, seconds since 1970
    strays: tuple[int, ...]  # positions of items that were chosen without regard to colour

    @property
    def latest_colour(self) -> str:
        """The colour of the latest phase, which the target has."""
        return self.phases[-1].colour

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DemoUser:
        """The reverse of `to_dict`, also for values that were read from JSON."""
        lists = {name: tuple(fields[name]) for name in ("favourites", "items", "timestamps", "strays")}
        return cls(fields["user"], phases=tuple(TastePhase(**phase) for phase in fields["phases"]), **lists)


def simulate_user(
    user: str, looks: Mapping[str, Look], seed: int, settings: TasteSettings | None = None
) -> DemoUser:
    """Simulate one user; the result depends on the seed and the user's id, and not on other users.

    In each phase, items of the phase's colour are chosen, and no colour is used twice. In every phase, most
    items are of the user's favourite categories; the pattern plays no part. No item is chosen twice.

    Args:
        user: The user's id.
        looks: The catalogue.
        seed: Seed of the simulation.
        settings: How users choose.
    """
    s = settings or TasteSettings()
    rng = random.Random(derive_seed(seed, "user", user))
    favourites = tuple(rng.sample(CATEGORIES, s.favourites))
    colours = rng.sample(list(COLOURS), len(s.phases))
    lengths = [rng.randint(*bounds) for bounds in s.phases]
    lengths[-1] += 1  # the target
    phases: list[TastePhase] = []
    items: list[str] = []
    strays: list[int] = []
    for colour, length in zip(colours, lengths, strict=True):
        phases.append(TastePhase(colour, len(items), length))
        for _ in range(length):
            is_target = len(items) == sum(lengths) - 1
            is_stray = rng.random() < s.stray and not is_target
            if is_stray:
                strays.append(len(items))
            wanted = None if is_stray else colour
            items.append(_choose(looks, wanted, favourites, s.loyalty, items, rng))
    return DemoUser(user, favourites, tuple(phases), tuple(items), _times(len(items), rng), tuple(strays))


def _choose(
    looks: Mapping[str, Look],
    colour: str | None,
    favourites: Sequence[str],
    loyalty: float,
    taken: Sequence[str],
    rng: random.Random,
) -> str:
    """An item of the colour that is not taken yet, with probability `loyalty` of a favourite category."""
    left = [item for item, look in looks.items() if colour in (None, look.colour) and item not in taken]
    is_loyal = rng.random() < loyalty
    near = [item for item in left if (looks[item].category in favourites) == is_loyal]
    return rng.choice(near or left)


def _times(length: int, rng: random.Random) -> tuple[int, ...]:
    now = _START + rng.randrange(365 * _DAY)
    times = []
    for _ in range(length):
        now += rng.randint(_DAY // 4, 20 * _DAY)
        times.append(now)
    return tuple(times)
