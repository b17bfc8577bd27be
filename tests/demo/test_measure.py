import pytest

from llmctl.demo.attributes import Look
from llmctl.demo.measure import count_right, held_out_pictures, name_attributes

LOOK = Look("cup", "red", "striped")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("A striped red cup.", {"category", "colour", "pattern"}),
        ("The item is a red Cup, STRIPED", {"category", "colour", "pattern"}),
        ("A dotted red bag.", {"colour"}),
        ("A red and blue striped cup.", {"category", "pattern"}),  # guessing both colours is not naming one
        ("A reddish cupboard.", set()),
        ("", set()),
    ],
)
def test_an_attribute_is_named_by_its_word_and_no_other_of_its_kind(text, right):
    found = name_attributes(text, LOOK)
    assert {name for name, is_right in found.items() if is_right} == right


def test_shares_come_with_wilson_intervals():
    found = count_right([LOOK, LOOK, LOOK, LOOK], ["A striped red cup."] * 3 + ["A plain red cup."])
    assert found["colour"].value == 1.0 and found["pattern"].value == found["all three"].value == 0.75
    assert found["pattern"].low == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3 of 4
    assert found["pattern"].n == 4


def test_held_out_pictures_depend_on_their_seed():
    looks, pictures = held_out_pictures(3, 1)
    assert held_out_pictures(3, 1)[0] == looks and held_out_pictures(3, 2)[0] != looks
    assert {picture.size for picture in pictures} == {(224, 224)}
