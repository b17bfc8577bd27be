import random

import numpy as np
import pytest

from llmctl.demo.attributes import CATEGORIES, COLOURS, PATTERNS, Look, all_looks
from llmctl.demo.pictures import draw_picture


def pixels(look, seed, size=56):
    return np.asarray(draw_picture(look, random.Random(seed), size), dtype=float)


def test_a_seed_gives_the_same_picture_and_another_seed_another():
    look = Look("cup", "red", "striped")
    assert (pixels(look, 3) == pixels(look, 3)).all()
    assert (pixels(look, 3) != pixels(look, 4)).any()


@pytest.mark.parametrize("look", all_looks()[::7], ids=lambda look: look.caption)
def test_the_named_colour_is_the_most_frequent_saturated_one(look):
    rgb = pixels(look, 1).reshape(-1, 3)
    vivid = rgb[np.ptp(rgb, axis=1) > 70]
    distances = {name: np.abs(vivid - np.array(value)).sum(1) for name, value in COLOURS.items()}
    nearest = np.argmin(np.stack(list(distances.values())), axis=0)
    assert list(COLOURS)[np.bincount(nearest).argmax()] == look.colour


def test_patterns_differ_only_inside_the_item():
    # background, place and size are drawn before the pattern, so pictures of one seed share them
    plain = pixels(Look("bag", "blue", "plain"), 5)
    for pattern in PATTERNS[1:]:
        differs = (pixels(Look("bag", "blue", pattern), 5) != plain).any(-1)
        assert 0.05 < differs.mean() < 0.6
        assert not differs[0].any() and not differs[:, 0].any()


def test_silhouettes_of_all_categories_differ():
    outlines = [pixels(Look(category, "blue", "plain"), 2)[..., 2] for category in CATEGORIES]
    for place, one in enumerate(outlines):
        for other in outlines[:place]:
            assert (np.abs(one - other) > 40).mean() > 0.03


def test_captions_name_all_three_words():
    assert Look("cup", "red", "striped").caption == "A striped red cup."
    assert len({look.caption for look in all_looks()}) == 8 * 8 * 4
