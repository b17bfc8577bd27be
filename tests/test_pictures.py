"""Pictures that can be read, and the reasons where they can not."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llmctl import pictures
from llmctl.pictures import read_picture


def save(path, size=(60, 30), mode="RGB", colour="red", **options):
    Image.new(mode, size, colour).save(path, **options)
    return path


def png_that_claims(path, width, height):
    """A few bytes whose header says that they are a huge picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_a_picture_is_rgb_and_keeps_its_size(tmp_path, suffix):
    found = read_picture(save(tmp_path / f"a.{suffix}"))
    assert found.problem is None and found.image.mode == "RGB" and found.image.size == (60, 30)


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 100), (80, 20)), ((100, 400), (20, 80)), ((81, 2), (80, 2))]
)
def test_a_large_picture_becomes_smaller_in_proportion_without_a_border(tmp_path, size, expected):
    found = read_picture(save(tmp_path / "a.png", size), max_side=80).image
    assert found.size == expected
    assert (np.asarray(found) == (255, 0, 0)).all()


def test_transparent_parts_are_white_and_turned_pictures_stand_upright(tmp_path):
    clear = save(tmp_path / "clear.png", mode="RGBA", colour=(0, 0, 0, 0))
    assert (np.asarray(read_picture(clear).image) == 255).all()
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side
    assert read_picture(save(tmp_path / "t.jpg", exif=turned)).image.size == (30, 60)


def test_a_bomb_is_not_opened(tmp_path):
    assert read_picture(png_that_claims(tmp_path / "a.png", 60_000, 60_000)).problem == pictures.TOO_LARGE
    assert read_picture(png_that_claims(tmp_path / "b.png", 9000, 9000)).problem == pictures.TOO_LARGE
    assert read_picture(save(tmp_path / "c.png"), max_megapixels=0.001).problem == pictures.TOO_LARGE


def test_whatever_else_is_wrong_has_a_reason(tmp_path):
    whole = save(tmp_path / "whole.jpg", (300, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture at all")
    (tmp_path / "empty.png").touch()
    (tmp_path / "script.svg").write_text("<svg onload='x'/>")
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        None: pictures.NO_PICTURE,
        tmp_path / "none.png": pictures.MISSING,
        tmp_path: pictures.MISSING,
        tmp_path / "pipe.png": pictures.MISSING,
        "a\0b.png": pictures.MISSING,
        tmp_path / "text.jpg": pictures.NO_IMAGE,
        tmp_path / "empty.png": pictures.NO_IMAGE,
        tmp_path / "script.svg": pictures.NO_IMAGE,
        tmp_path / "cut.jpg": pictures.BROKEN,
        png_that_claims(tmp_path / "damaged.png", 100, 100): pictures.BROKEN,
        save(tmp_path / "line.png", (600, 2)): pictures.TOO_NARROW,
    }
    assert {path: read_picture(path).problem for path in cases} == cases


def test_a_file_of_too_many_bytes_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 100)
    assert read_picture(save(tmp_path / "a.bmp")).problem == pictures.TOO_LARGE
