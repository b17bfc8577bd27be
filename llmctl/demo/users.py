"""Simulated users whose taste in colour drifts, while their taste in categories lasts; both are known."""

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
class UserSettings:
    """How users choose. The defaults make colour, which no title tells, decide; and its latest phase."""

    phases: tuple[tuple[int, int], ...] = ((4, 5), (3, 3), (2, 3))
    """Fewest and most items of each phase of taste; the target comes after those of the last one."""
    stray: float = 0.1
    """Chance that an item of the history, never the target, is chosen without regard to colour."""
    favourites: int = 4
    """Categories that a user likes all along."""
    loyalty: float = 0.7
    """Chance that an item is of one of these categories."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a history in which one colour is preferred."""

    colour: str
    start: int  # place of its first item in the user's whole sequence
    length: int  # items, the target included in the last phase


@dataclass(frozen=True)
class DemoUser:
    """What a user is and did: the ground truth."""

    user: str
    favourites: tuple[str, ...]  # categories
    phases: tuple[Phase, ...]  # the oldest first
    items: tuple[str, ...]  # T, the target last
    timestamps: tuple[int, ...]  # T, seconds since 1970
    strays: tuple[int, ...]  # places of items that were chosen without regard to colour

    @property
    def latest_colour(self) -> str:
        """What the target has."""
        return self.phases[-1].colour

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DemoUser:
        """The reverse of `to_dict`, also after a passage through JSON."""
        lists = {name: tuple(fields[name]) for name in ("favourites", "items", "timestamps", "strays")}
        return cls(fields["user"], phases=tuple(Phase(**phase) for phase in fields["phases"]), **lists)


def simulate_user(
    user: str, looks: Mapping[str, Look], seed: int, settings: UserSettings | None = None
) -> DemoUser:
    """One user; depends on the seed and the user's name, not on who else there is.

    In each phase, items of the phase's colour are chosen and no colour comes back. Whatever the phase, most
    items are of the user's favourite categories; patterns are chosen without regard. No item comes twice.

    Args:
        user: Their name.
        looks: The catalogue.
        seed: Of the simulation.
        settings: How users choose.
    """
    s = settings or UserSettings()
    rng = random.Random(derive_seed(seed, "user", user))
    favourites = tuple(rng.sample(CATEGORIES, s.favourites))
    colours = rng.sample(list(COLOURS), len(s.phases))
    lengths = [rng.randint(*bounds) for bounds in s.phases]
    lengths[-1] += 1  # the target
    phases: list[Phase] = []
    items: list[str] = []
    strays: list[int] = []
    for colour, length in zip(colours, lengths, strict=True):
        phases.append(Phase(colour, len(items), length))
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
    """An item of the colour that is not taken yet, of a favourite category where luck has it."""
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
