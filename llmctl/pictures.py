"""Pictures of items, read without trust: whatever a file holds, there is a picture or a reason."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # decoders that are tried; others are not
MAX_FILE_BYTES = 1 << 28
MAX_ASPECT = 50  # a line of pixels shows nothing, and processors fail on it

NO_PICTURE, MISSING, NO_IMAGE, BROKEN, TOO_LARGE, TOO_NARROW = (
    "no picture named",
    "file missing",
    "no image in the file",
    "image truncated or damaged",
    "too many pixels or bytes",
    "too narrow",
)


@dataclass(frozen=True)
class Picture:
    """A picture as models take it, or the reason why there is none."""

    image: Image | None  # RGB, upright, no larger than asked
    problem: str | None = None


def read_picture(path: str | Path | None, *, max_side: int = 672, max_megapixels: float = 64.0) -> Picture:
    """Read a picture; a bad one is a reason, never an error.

    A file is not decoded before its header has said how large it is, so a decompression bomb costs nothing.
    A larger picture is made smaller in proportion; none is cropped or padded. Transparent parts are shown on
    white, where many readers leave them black.

    Args:
        path: The file; None where the item names none.
        max_side: Pixels of the longer side at most.
        max_megapixels: Pixels of a file that is opened at most, in millions.
    """
    if path is None:
        return Picture(None, NO_PICTURE)
    file = Path(path)
    try:
        if not file.is_file():  # a named pipe would be waited for
            return Picture(None, MISSING)
        if file.stat().st_size > MAX_FILE_BYTES:
            return Picture(None, TOO_LARGE)
    except (OSError, ValueError):  # a name with a null byte, no permission
        return Picture(None, MISSING)
    return _decode(file, max_side, max_megapixels)


def _decode(file: Path, max_side: int, max_megapixels: float) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, whose size is looked at here
            with Image.open(file, formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > max_megapixels * 1e6:
                    return Picture(None, TOO_LARGE)
                if max(width, height) > MAX_ASPECT * min(width, height):
                    return Picture(None, TOO_NARROW)
                opened.load()
                return Picture(_as_rgb(opened, max_side))
    except UnidentifiedImageError:
        return Picture(None, NO_IMAGE)
    except Image.DecompressionBombError:
        return Picture(None, TOO_LARGE)
    except Exception:  # decoders of damaged files raise OSError, ValueError, SyntaxError, struct.error ...
        return Picture(None, BROKEN)


def _as_rgb(image: Image, max_side: int) -> Image:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(ground, layer)
    plain = upright.convert("RGB")
    if max(plain.size) > max_side:
        scale = max_side / max(plain.size)
        size = [max(1, round(side * scale)) for side in plain.size]
        plain = plain.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return plain
