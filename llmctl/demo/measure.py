"""Measure how often descriptions of held-out pictures name the right attributes."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.demo.attributes import CATEGORIES, COLOURS, PATTERNS, Look, all_looks
from llmctl.demo.pictures import draw_picture
from llmctl.msr import prompts
from llmctl.runs import Estimate, Table, wilson
from llmctl.sampling.common import derive_seed

WORDS = {"category": CATEGORIES, "colour": tuple(COLOURS), "pattern": PATTERNS}
HELD_OUT_SIZE = 224  # pixels, as in the catalogue by default


def held_out_pictures(count: int, seed: int) -> tuple[list[Look], list[Any]]:
    """Looks, and pictures of them as in the catalogue; none of the training pictures is among them.

    Args:
        count: The number of pictures.
        seed: Any seed; training pictures are drawn from another random stream at every seed.
    """
    rng = random.Random(derive_seed(seed, "held-out pictures"))
    known = all_looks()
    looks = [rng.choice(known) for _ in range(count)]
    return looks, [draw_picture(look, rng, HELD_OUT_SIZE) for look in looks]


def ask_about_pictures(folder: Path, pictures: Sequence[Any], question: str = prompts.ITEM) -> list[str]:
    """Greedy descriptions by a model, through the engine that item summaries use.

    Args:
        folder: The folder of the vision-language model.
        pictures: PIL images.
        question: The prompt after each picture.
    """
    from llmctl.sampling import Settings, open_sampler

    conversations = [
        [{"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": question}]}]
        for one in pictures
    ]
    sampler = open_sampler(str(folder), engine="transformers", max_batch=32)
    try:
        replies = sampler.chat(conversations, Settings(temperature=0.0, max_tokens=24))
    finally:
        sampler.close()
    return [reply[0].text for reply in replies]


def count_right(looks: Sequence[Look], descriptions: Sequence[str]) -> dict[str, Estimate]:
    """Share of descriptions that name each attribute, with a Wilson interval; and all three.

    A description is right about an attribute where it has its word and no other word of that attribute.

    Args:
        looks: What the pictures show.
        descriptions: One text per picture.
    """
    hits = [name_attributes(text, look) for look, text in zip(looks, descriptions, strict=True)]
    found = {name: wilson(sum(hit[name] for hit in hits), len(hits)) for name in WORDS}
    return found | {"all three": wilson(sum(all(hit.values()) for hit in hits), len(hits))}


def name_attributes(text: str, look: Look) -> dict[str, bool]:
    """Whether a text names each attribute rightly."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {name: words & set(known) == {getattr(look, name)} for name, known in WORDS.items()}


def accuracy_table(report: Mapping[str, Any]) -> Table:
    """How well a demo model describes pictures, from its report."""
    rows = [[name, Estimate(**one).format()] for name, one in report["names_rightly"].items()]
    caption = f"Descriptions of held-out pictures, seed {report['held_out']['seed']}; 95 % Wilson intervals."
    return Table(["attribute", "share of descriptions that name it rightly"], rows, caption)


def writer_table(report: Mapping[str, Any]) -> Table:
    """How well a demo writer summarizes users, from its report."""
    rows = [[kind, Estimate(**one).format()] for kind, one in report["names_latest_colour"].items()]
    caption = f"Summaries of held-out users, seed {report['held_out']['seed']}; 95 % Wilson intervals."
    return Table(["history", "share of summaries that begin with the latest colour"], rows, caption)
