"""Small data sets for the tests: files that they write themselves."""

import csv
import json

import numpy as np

from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.types import History

WORDS = ("red", "blue", "green", "round", "square", "old", "new", "soft")


def write_files(folder, users=60, items=40, length=8, seed=0):
    """Interactions and items of a random data set as CSV; users walk along neighbouring items."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "interactions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user", "item", "timestamp"])
        for user in range(users):
            start, now = int(rng.integers(items)), int(rng.integers(1000))
            for step in range(length):
                writer.writerow([f"u{user}", f"i{(start + step) % items}", now + step])
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item", "title", "text", "image"])
        for item in range(items):
            writer.writerow([f"i{item}", f"{WORDS[item % 8]} thing {item}", "", ""])
    return folder


def history(*items, user="u"):
    """A history without times."""
    return History(user, items, tuple(float(n) for n in range(len(items))))


def recipe_of(folder, **sections):
    """A recipe on the files of `write_files`."""
    data = {"interactions": folder / "interactions.csv", "items": folder / "items.csv"}
    data |= sections.pop("data", {})
    return MsrRecipe.model_validate({"data": data, **sections})


def write_lines(path, *rows):
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_pictures(folder, items=40):
    """Texts and pictures for the items of `write_files`; the last five have none that can be read."""
    from PIL import Image

    (folder / "pictures").mkdir()
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item", "title", "text", "image"])
        for item in range(items):
            name = "" if item >= items - 2 else f"pictures/i{item}.png"
            writer.writerow([f"i{item}", f"{WORDS[item % 8]} thing {item}", f"text of {item}", name])
            if item < items - 5:
                Image.new("RGB", (8, 8), (item, 2 * item, 7 * item)).save(folder / name)
    (folder / f"pictures/i{items - 5}.png").write_text("no picture")
    noise = folder / f"pictures/i{items - 4}.png"
    Image.effect_noise((64, 64), 90).save(noise)
    noise.write_bytes(noise.read_bytes()[:2000])
    return folder
