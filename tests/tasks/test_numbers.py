from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.tasks.numbers import bare_number, find_numbers, format_number, parse_number, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000.00", 1000),
        ("$72", 72),
        ("-$72", -72),
        ("$-72", -72),
        ("72 clips", 72),
        ("72 people per full-time day", 72),
        ("$72/hour", 72),
        ("72 cm^2", 72),
        ("90^\\circ", 90),
        ("-3", -3),
        ("- 3", -3),
        ("\u22123", -3),
        ("3/4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("50%", 50),
        ("50\\%", 50),
        ("72.", 72),
        (".5", Fraction(1, 2)),
        ("x = 72", 72),
        ("6 * 12 = 72", 72),
        ("**72**", 72),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\frac34", Fraction(-3, 4)),
        ("1\\frac{1}{2}", Fraction(3, 2)),
        ("\\$32{,}348", 32348),
        ("11,\\! 111,\\! 100", 11111100),
        ("6\\,\\text{cm}", 6),
        ("3 \\times 10^{5}", 300000),
        ("\u0667\u0662", 72),  # Arabic-Indic 72
        ("\uff17\uff12", 72),  # fullwidth 72
    ],
)
def test_every_spelling_of_a_number_is_read(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clips",
        "x + 2",
        "2^3",
        "5!",
        "5\u00b2",
        "9**9**9",
        "1/0",
        "1e999",
        "1e99999999999999999999",
        "7" * 61,
        "1,2",
    ],
)
def test_what_is_no_bounded_number_is_refused(text):
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["5x", "3i", "10 inches", "x = 5", "x^2+y^2=5", "(3, 4)", "2\\pi"])
def test_a_bare_number_has_no_words_symbols_or_equations(text):
    assert bare_number(text) is None


def test_a_minus_between_numbers_is_an_operation_and_before_one_a_sign():
    assert find_numbers(plain("5-3, 10 - 3, = -3")) == [5, 3, 10, 3, -3]


def test_digits_within_words_are_no_numbers():
    assert find_numbers(plain("H2O costs $5.50, x^2")) == [Fraction(11, 2)]


@given(st.fractions(max_denominator=10**6).filter(lambda value: abs(value) < 10**9))
def test_a_formatted_number_reads_back_as_itself(value):
    assert parse_number(format_number(value)) == value


@given(
    st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "${:,}", "{}.00", "{} clips", "\\text{{{}}}"])
)
def test_spellings_of_a_whole_number_are_equal(value, form):
    assert parse_number(form.format(value)) == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.,-+/e^$\\{}() \n!*xfrac%٧²", max_size=200))
def test_no_text_raises(text):
    parse_number(text)
    bare_number(text)
    find_numbers(plain(text))


@pytest.mark.parametrize(
    "unit",
    ["1", "1,111", ",111", "1.", " ", "-", "\\frac", "\\text{", "1 ", "1/", "e1", "10^", "{", "\\,", "×10^1"],
)
@pytest.mark.timeout(120)  # a million repeats in quadratic time would take hours
def test_repeated_text_is_not_read_in_quadratic_time(unit):
    text = unit * 1_000_000
    parse_number(text)
    bare_number(text)
    find_numbers(plain(text))
