"""Small data of the tests' own, in the form of the real files, and texts that mean harm."""

import json

GSM8K_ROWS = [
    {
        "question": "Ann has 3 bags of 4 clips. How many clips?",
        "answer": "3 * 4 = <<3*4=12>>12 clips.\n#### 12",
    },
    {"question": "Bo earns $500 twice. How much?", "answer": "500 * 2 = $<<500*2=1000>>1,000.\n#### 1,000"},
    {"question": "It is 5 degrees and falls by 8. What is it?", "answer": "5 - 8 = <<5-8=-3>>-3.\n#### -3"},
]
SVAMP_ROWS = [
    {
        "Body": "Ann has 3 pens",
        "Question": "How many are left if she loses 1?",
        "Equation": "( 3 - 1 )",
        "Answer": 2.0,
    },
    {"Body": "Bo has 5 pens.", "Question": "How many has he?", "Equation": "", "Answer": "5"},
]
MATH_ROWS = [
    {
        "problem": "Half of one?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "It is $\\boxed{\\dfrac{1}{2}}$.",
    },
    {"problem": "Expand.", "solution": "First \\boxed{x}, then $\\boxed{x^2+x}$."},
    {"problem": "Domain?", "solution": "All: $\\boxed{[0,\\infty)}$"},
    {"problem": "Day?", "solution": "$\\boxed{\\text{Tuesday}}$"},
]
JSONL_ROWS = [
    {"prompt": "1 + 1?", "answer": 2, "solution": "It is \\boxed{2}.", "id": "a"},
    {"prompt": "1 / 4?", "answer": "0.25", "solution": "It is \\boxed{\\frac14}.", "id": "b"},
]

HOSTILE = {
    "power tower": "\\boxed{9**9**9}",
    "latex tower": "\\boxed{10^{10^{10}}}",
    "split tower": "\\boxed{(9^{9})^{(9^{9})}}",
    "bare tower": "9^{999999999}",
    "factorial": "\\boxed{(10^9)!}",
    "nested factorials": "\\boxed{99!!!!!!!}",
    "megabytes of digits": "\\boxed{" + "7" * 3_000_000 + "}",
    "digits alone": "7" * 3_000_000,
    "comma digits": "1" + ",111" * 500_000 + ",",
    "point digits": "1.1" * 500_000,
    "spaces": "\\frac" + " " * 1_000_000 + "answer is" + " " * 1_000_000,
    "nested braces": "\\boxed{" * 50_000,
    "closed braces": "\\boxed{" + "{" * 900 + "1" + "}" * 900 + "}",
    "nested fractions": "\\boxed{" + "\\frac{1}{" * 60 + "2" + "}" * 60 + "}",
    "nested roots": "\\boxed{" + "\\sqrt{" * 200 + "2" + "}" * 200 + "}",
    "brackets": "\\boxed{" + "(" * 150 + "x" + ")" * 150 + "}",
    "big sum": "\\boxed{\\sum_{n=1}^{999} n^{n^{n}}}",
    "integral": "\\boxed{\\int_0^1 \\sin(x^{99}) e^{x^{97}} dx}",
    "huge binomial": "\\boxed{\\binom{99999999999}{4999999999}}",
    "expansion": "\\boxed{(a+b+c+d+e+f+g)^{999}-(a+b)^{998}}",
    "unicode digits": "\\boxed{" + "\u0667" * 400_000 + "}",
    "superscripts": "\\boxed{9\u2079\u2079\u2079}",
    "code": "\\boxed{__import__('os').system('touch PWNED')}",
    "code in a tag": "<answer>[open('PWNED', 'w') for _ in [0]]</answer>",
    "tags": "<answer>" * 200_000,
    "hashes": "#### " * 300_000,
    "dollars": "$" * 1_000_000,
    "exponent": "1e999999999",
    "exponents": "\\boxed{1e99999999999999999999999}",
    "null": "\\boxed{\x00}",
    "surrogate": "\\boxed{\udcff 7}",
    "empty": "",
    "backslashes": "\\boxed{" + "\\" * 100_001,
    "minus signs": "-" * 1_000_000 + "5",
    "input": "\\boxed{\\input{/etc/passwd}}",
    "macro bomb": "\\boxed{\\def\\a{\\a\\a}\\a}",
}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
