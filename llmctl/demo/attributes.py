"""The attributes of a picture of the demo: a category, a colour and a pattern, each one word."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = ("cup", "bottle", "shirt", "hat", "chair", "umbrella", "bag", "boot")
COLOURS = {  # red, green, blue, 0 to 255
    "red": (205, 30, 38),
    "orange": (242, 128, 20),
    "yellow": (244, 212, 36),
    "green": (38, 142, 62),
    "blue": (34, 84, 200),
    "purple": (116, 46, 158),
    "pink": (244, 140, 182),
    "brown": (110, 66, 34),
}
PATTERNS = ("plain", "striped", "dotted", "checked")


@dataclass(frozen=True, order=True)
class Look:
    """The three attributes of a picture."""

    category: str
    colour: str
    pattern: str

    @property
    def caption(self) -> str:
        """The sentence that describes it, such as "A striped red cup."."""
        article = "An" if self.adjectives[0] in "aeiou" else "A"
        return f"{article} {self.adjectives} {self.category}."

    @property
    def adjectives(self) -> str:
        """Pattern and colour."""
        return f"{self.pattern} {self.colour}"


def all_looks() -> list[Look]:
    """Every combination of attributes, in a fixed order."""
    return [Look(c, colour, p) for c in CATEGORIES for colour in COLOURS for p in PATTERNS]
