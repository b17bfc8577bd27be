"""Draw the demo's pictures with Pillow: one item on a pale background, at a random position and size.

A picture depends on the given random generator alone, so a seed gives the same picture on any machine.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmctl.demo.attributes import COLOURS, Look

if TYPE_CHECKING:
    from PIL import Image

RGB = tuple[int, int, int]
_OVERSAMPLING = 2  # drawn larger and scaled down, as Pillow draws with hard edges
_CREAM, _INK = (250, 246, 236), (38, 34, 42)


def draw_picture(look: Look, rng: random.Random, size: int = 224) -> Image.Image:
    """A picture of a look.

    Args:
        look: What it shows.
        rng: Source of background, position, size, shades, and direction of the pattern.
        size: Width and height in pixels.

    Returns:
        An RGB image of size x size.
    """
    from PIL import Image, ImageFilter

    canvas = size * _OVERSAMPLING
    side = canvas * rng.uniform(0.6, 0.86)
    left, top = (rng.uniform(0.04, 0.96) * (canvas - side) for _ in range(2))
    mask = Image.new("L", (canvas, canvas), 0)
    _SHAPES[look.category](_Pen(mask, left, top, side, is_mirrored=rng.random() < 0.5))
    colour = _shade(COLOURS[look.colour], rng)
    picture = _background(canvas, rng)
    rim = mask.filter(ImageFilter.BoxBlur(canvas / 90)).point(lambda level: 255 if level > 20 else 0)
    picture.paste(tuple(round(0.35 * part) for part in colour), mask=rim)
    picture.paste(_cloth(look.pattern, colour, canvas, side, rng), mask=mask)
    return picture.resize((size, size), Image.Resampling.BOX)


def _shade(colour: RGB, rng: random.Random) -> RGB:
    """The colour, a little lighter or darker, and with a slightly different hue."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in colour))
    hue = (hue + rng.uniform(-0.012, 0.012)) % 1
    saturation = min(1.0, saturation * rng.uniform(0.9, 1.08))
    value = min(1.0, value * rng.uniform(0.9, 1.08))
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _pale(rng: random.Random) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.14), rng.uniform(0.62, 0.97))
    return round(red * 255), round(green * 255), round(blue * 255)


def _background(canvas: int, rng: random.Random) -> Image.Image:
    """A gradient of two pale tones, and a few pale discs."""
    from PIL import Image, ImageDraw

    tone = Image.linear_gradient("L").resize((canvas, canvas)).rotate(rng.choice((0, 90, 180, 270)))
    picture = Image.composite(
        Image.new("RGB", (canvas, canvas), _pale(rng)), Image.new("RGB", (canvas, canvas), _pale(rng)), tone
    )
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randrange(4)):
        x, y, radius = rng.uniform(0, canvas), rng.uniform(0, canvas), canvas * rng.uniform(0.05, 0.25)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_pale(rng))
    return picture


def _cloth(pattern: str, colour: RGB, canvas: int, side: float, rng: random.Random) -> Image.Image:
    """A canvas filled with the pattern: the colour, with cream or ink unless it is plain."""
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (canvas, canvas), colour)
    if pattern == "plain":
        return sheet
    draw = ImageDraw.Draw(sheet)
    luminance = (0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]) / 255
    other = _INK if luminance > 0.6 or (luminance > 0.35 and rng.random() < 0.3) else _CREAM
    period = side / rng.uniform(5.2, 6.6)
    x0, y0 = rng.uniform(0, period), rng.uniform(0, period)
    cells = range(-1, math.ceil(canvas / period) + 1)
    if pattern == "striped":
        is_upright, slant = rng.random() < 0.5, rng.uniform(-0.5, 0.5) * canvas
        for cell in range(-len(cells), 2 * len(cells)):
            near = x0 + cell * period
            ends = ((near, 0), (near + slant, canvas))
            points = [*ends, *((x + 0.42 * period, y) for x, y in reversed(ends))]
            draw.polygon(points if is_upright else [(y, x) for x, y in points], fill=other)
        return sheet
    for row in cells:
        for column in cells:
            x, y = x0 + column * period, y0 + row * period
            if pattern == "dotted":
                x += period / 2 * (row % 2)
                draw.ellipse((x, y, x + 0.56 * period, y + 0.56 * period), fill=other)
            elif (row + column) % 2:
                draw.rectangle((x, y, x + period - 1, y + period - 1), fill=other)
    return sheet


class _Pen:
    """Draws on a mask in coordinates of the item's square: 0 to 1, with the origin at the upper left."""

    def __init__(self, mask: Image.Image, left: float, top: float, side: float, *, is_mirrored: bool) -> None:
        from PIL import ImageDraw

        self._draw: Any = ImageDraw.Draw(mask)
        self._left, self._top, self._side, self._is_mirrored = left, top, side, is_mirrored

    def _at(self, x: float, y: float) -> tuple[float, float]:
        x = 1 - x if self._is_mirrored else x
        return self._left + x * self._side, self._top + y * self._side

    def polygon(self, *points: tuple[float, float]) -> None:
        self._draw.polygon([self._at(x, y) for x, y in points], fill=255)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self._draw.rectangle(self._corners(x0, y0, x1, y1), fill=255)

    def oval(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self._draw.ellipse(self._corners(x0, y0, x1, y1), fill=255)

    def dome(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """The upper half of an ellipse."""
        self._draw.chord(self._corners(x0, y0, x1, y1), 180, 360, fill=255)

    def arc(self, x0: float, y0: float, x1: float, y1: float, angles: tuple[int, int], width: float) -> None:
        """Part of an ellipse's rim; angles in degrees, clockwise from three o'clock."""
        start, end = (180 - angles[1], 180 - angles[0]) if self._is_mirrored else angles
        self._draw.arc(
            self._corners(x0, y0, x1, y1), start, end, fill=255, width=max(1, round(width * self._side))
        )

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        (ax, ay), (bx, by) = self._at(x0, y0), self._at(x1, y1)
        return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _cup(pen: _Pen) -> None:
    pen.polygon((0.02, 0.16), (0.7, 0.16), (0.62, 0.9), (0.1, 0.9))
    pen.arc(0.5, 0.26, 0.98, 0.72, (-110, 110), 0.1)


def _bottle(pen: _Pen) -> None:
    pen.box(0.42, 0.0, 0.58, 0.3)
    pen.polygon((0.42, 0.25), (0.58, 0.25), (0.72, 0.45), (0.28, 0.45))
    pen.box(0.28, 0.44, 0.72, 1.0)


def _shirt(pen: _Pen) -> None:
    pen.polygon((0.25, 0.08), (0.4, 0.08), (0.5, 0.18), (0.6, 0.08), (0.75, 0.08), (0.75, 0.95), (0.25, 0.95))
    pen.polygon((0.25, 0.08), (0.0, 0.34), (0.12, 0.5), (0.3, 0.36))
    pen.polygon((0.75, 0.08), (1.0, 0.34), (0.88, 0.5), (0.7, 0.36))


def _hat(pen: _Pen) -> None:
    pen.dome(0.2, 0.16, 0.8, 1.1)
    pen.oval(0.0, 0.56, 1.0, 0.8)


def _chair(pen: _Pen) -> None:
    pen.box(0.12, 0.0, 0.3, 1.0)
    pen.box(0.12, 0.46, 0.9, 0.64)
    pen.box(0.74, 0.6, 0.9, 1.0)


def _umbrella(pen: _Pen) -> None:
    pen.dome(0.0, 0.02, 1.0, 1.02)
    pen.box(0.46, 0.0, 0.54, 0.88)
    pen.arc(0.46, 0.76, 0.72, 1.0, (0, 180), 0.08)


def _bag(pen: _Pen) -> None:
    pen.polygon((0.1, 0.38), (0.9, 0.38), (1.0, 0.98), (0.0, 0.98))
    pen.arc(0.26, 0.02, 0.74, 0.74, (180, 360), 0.09)


def _boot(pen: _Pen) -> None:
    pen.box(0.14, 0.0, 0.54, 0.98)
    pen.dome(0.3, 0.56, 1.0, 1.4)


_SHAPES: dict[str, Callable[[_Pen], None]] = {
    "cup": _cup,
    "bottle": _bottle,
    "shirt": _shirt,
    "hat": _hat,
    "chair": _chair,
    "umbrella": _umbrella,
    "bag": _bag,
    "boot": _boot,
}
