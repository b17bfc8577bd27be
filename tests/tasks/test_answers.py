import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.tasks.answers import KINDS, last_boxed, normalize_answer, read_answer

from .samples import HOSTILE


@pytest.mark.parametrize(
    "text",
    [
        "72",
        "72.0",
        "$72",
        "72 clips",
        "48 + 24 = 72",
        "#### 72",
        "The answer is 72.",
        "The answer is: $72. There were 3 steps.",
        "the answer is 48 + 24 = 72",
        "The answer is:\n72",
        "**Answer:** 5 and so the answer is **72**",
        "First \\boxed{5}, then \\boxed{72}",
        "\\boxed{72 \\text{ clips}}",
        "\\boxed{\\$72.00}",
        "\\boxed 72",
        "\\boxed{x = 72}",
        "<answer>72</answer> and 5 more words",
        "It was 5.\n\nFinally \\boxed{72} and then \\boxed{7",
        "\uff17\uff12",
    ],
)
def test_one_number_has_one_normal_form_wherever_it_stands(text):
    assert read_answer(text, "number") == "72"


@pytest.mark.parametrize("text", ["", "   ", "no idea", "\\boxed{seventy-two}, not 5", "\\boxed{x + 2}"])
def test_an_unreadable_number_is_none(text):
    assert read_answer(text, "number") is None


def test_a_box_holds_nested_and_escaped_braces():
    assert last_boxed("\\boxed{\\frac{1}{\\sqrt{2}}}") == "\\frac{1}{\\sqrt{2}}"
    assert last_boxed("\\boxed{\\{1, 2\\}}") == "\\{1, 2\\}"
    assert last_boxed("nothing") is None


@pytest.mark.parametrize(
    "text",
    [
        "12 34 56",
        "12, 34, 56",
        "[12, 34, 56]",
        "34 56 12 -> 12 34 56",
        "Sorted: 12 34 56",
        "56 34 12 = 12 34 56",
        "12 34 56\n\nI hope this helps.",
        "\\boxed{12, 34, 56}",
        "The answer is 12, 34, 56.",
    ],
)
def test_a_list_is_read_with_any_separators(text):
    assert read_answer(text, "numbers") == "12 34 56"


def test_a_list_keeps_its_order():
    assert read_answer("34 12", "numbers") != read_answer("12 34", "numbers")


@pytest.mark.parametrize("text", ["Paris", "So:\n paris. ", "The answer is **Paris**.", "\\boxed{Paris}"])
def test_text_is_compared_without_case_and_punctuation(text):
    assert read_answer(text, "text") == "paris"


def test_latex_is_read_from_the_box_or_the_last_formula():
    assert read_answer("so $x=1$, thus $\\boxed{x^2 + x}$", "latex") == "x^2+x"
    assert read_answer("so $x^2 + x$ it is", "latex") == "x^2+x"
    assert read_answer("the answer is $x^2 + x$.", "latex") == "x^2+x"
    assert read_answer("no formula", "latex") is None


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="'words'.*number, numbers, text, latex"):
        read_answer("7", "words")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(120)  # what must not hang
def test_hostile_text_neither_raises_nor_hangs(kind, name):
    read_answer(HOSTILE[name], kind)


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=300) | st.text(alphabet="\\boxed{}<answer/>#$ \n=is123x^", max_size=300),
    st.sampled_from(KINDS),
)
def test_no_text_raises_and_a_normal_form_is_stable(text, kind):
    answer = read_answer(text, kind)
    if answer is not None and kind in ("number", "numbers"):
        assert normalize_answer(answer, kind) == answer
