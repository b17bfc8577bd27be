"""Images of items from untrusted files: whatever a file contains, the result is an image or a reason."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # the only decoders that are tried
MAX_FILE_BYTES = 1 << 28
MAX_ASPECT = 50  # thinner images show nothing, and image processors fail on them

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
    """An image as models take it, or the reason why there is none."""

    image: Image | None  # RGB, upright, no larger than asked
    problem: str | None = None


def read_picture(path: str | Path | None, *, max_side: int = 672, max_megapixels: float = 64.0) -> Picture:
    """Read an image; a bad file gives a reason, never an error.

    The size in the header is checked before a file is decoded, so a decompression bomb costs nothing.
    Larger images are scaled down in proportion; none is cropped or padded. Transparent parts become white,
    where many readers leave them black.

    Args:
        path: The file; None if the item names no file.
        max_side: Maximum length of the longer side, in pixels.
        max_megapixels: Maximum size of a file that is decoded, in millions of pixels.
    """
    if path is None:
        return Picture(None, NO_PICTURE)
    file = Path(path)
    try:
        if not file.is_file():  # reading a named pipe would block
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
            warnings.simplefilter("ignore")  # about bombs, whose size is checked here
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
