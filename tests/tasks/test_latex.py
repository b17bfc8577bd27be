import pytest

from llmctl.tasks.latex import is_bounded, normalize_latex, same_latex


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\dfrac{1}{2}", "0.5"),
        ("\\frac12", "\\frac{1}{2}"),
        ("\\frac \\pi4", "\\frac{\\pi}{4}"),
        ("10\\text{ inches}", "10"),
        ("6 \\text{ cm}^2", "6"),
        ("90^\\circ", "90"),
        ("\\$1{,}000", "1000"),
        ("50\\%", "50"),
        ("x = 9", "9"),
        ("x \\in [0, 1]", "[0,1]"),
        ("\\left( 1, 2 \\right)", "(1,2)"),
        ("\\text{(B)}", "B"),
        ("10\\sqrt 2", "10\\sqrt{2}"),
        ("25_{6}", "25_6"),
        ("x \\leq 5", "x\\le 5"),
        ("a/b", "\\frac{a}{b}"),
    ],
)
def test_spellings_of_one_formula_have_one_normal_form(one, other):
    assert normalize_latex(one) == normalize_latex(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5x", "5"),
        ("3i", "3"),
        (".5", "5"),
        ("(1,2)", "(2,1)"),
        ("x^2", "x2"),
        ("\\pi r", "\\pi"),
        ("-1", "1"),
    ],
)
def test_different_formulas_have_different_normal_forms(one, other):
    assert normalize_latex(one) != normalize_latex(other)


@pytest.mark.parametrize(
    "formula",
    [
        "9**9**9",
        "10^{10^{10}}",
        "2^2^2",
        "x^{12345}",
        "(10^9)!",
        "99999!",
        "5!!",
        "7" * 31,
        "x" * 401,
        "{" * 13 + "}" * 13,
    ],
)
def test_formulas_beyond_the_limits_never_reach_math_verify(formula, monkeypatch):
    monkeypatch.setattr("llmctl.tasks.latex.sandbox", lambda: pytest.fail("asked the sandbox"))
    assert not is_bounded(formula)
    assert not same_latex(formula, "x+1")


@pytest.mark.parametrize(
    "formula", ["x^{10}", "2x^9-8x^7+9x^6", "x^5x^5", "5!", "(x+1)^{12}", "\\sqrt{x^2+y^2}"]
)
def test_ordinary_formulas_are_within_the_limits(formula):
    assert is_bounded(formula)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [("3032_6", "3032_5", False), ("3032", "3032_5", True), ("3033", "3032_5", False)],
)
def test_digits_in_another_base_are_another_number(one, other, equal):
    assert same_latex(one, other) is equal


@pytest.mark.parametrize(("one", "other"), [("1/2", "1/3"), ("Tuesday", "Monday"), ("7", "7")])
def test_numbers_and_words_are_settled_without_math_verify(one, other, monkeypatch):
    monkeypatch.setattr("llmctl.tasks.latex.sandbox", lambda: pytest.fail("asked the sandbox"))
    assert same_latex(one, other) == (one == other)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("x(x+1)", "x^2+x", True),
        ("x(x+1)", "x^2-x", False),
        ("\\sqrt{50}", "5\\sqrt{2}", True),
        ("9,7,12", "7,9,12", True),
        ("(2,1)", "(1,2)", False),
        ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", True),
        ("5x", "5", False),
    ],
)
def test_math_verify_settles_algebra(one, other, equal):
    assert same_latex(one, other) is equal
