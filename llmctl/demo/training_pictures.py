"""The pictures that the demo's vision-language model is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmctl.demo.attributes import Look, all_looks
from llmctl.demo.pictures import draw_picture
from llmctl.runs import progress
from llmctl.sampling.common import derive_seed

_SHIFT = 3  # most pixels that a picture is shifted by, for variety


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures at the input size of the vision encoder, and what they show."""

    pixels: NDArray[np.uint8]  # (n, pixels, pixels, 3)
    looks: list[Look]

    @classmethod
    def draw(cls, count: int, size: int, seed: int, *, quiet: bool = False) -> TrainingPictures:
        """Draw pictures at twice the size and scale them down, as the processor does with larger ones."""
        from PIL import Image

        rng = random.Random(derive_seed(seed, "pictures to learn from"))
        known, looks = all_looks(), []
        pixels = np.empty((count, size, size, 3), np.uint8)
        with progress(count, "draw", "pictures", quiet=quiet) as bar:
            for place in range(count):
                looks.append(rng.choice(known))
                picture = draw_picture(looks[-1], rng, 2 * size)
                pixels[place] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
                bar.advance()
        return cls(pixels, looks)

    def batches(self, steps: int, size: int, seed: int) -> Iterator[tuple[Tensor, list[Look]]]:
        """Batches (B, 3, pixels, pixels) of values from -1 to 1, drawn with replacement, and their looks."""
        rng = np.random.default_rng(derive_seed(seed, "batches"))
        for _ in range(steps):
            places = rng.integers(len(self.looks), size=size)
            pixels = np.roll(self.pixels[places], rng.integers(-_SHIFT, _SHIFT + 1, size=2), axis=(1, 2))
            if rng.random() < 0.5:
                pixels = pixels[:, :, ::-1]
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
            yield batch, [self.looks[place] for place in places]
