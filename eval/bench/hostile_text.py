"""Seconds that reading hostile replies takes, and that ranking 100,000 users takes.

    python eval/bench/hostile_text.py

A model may write anything. The targets are processor seconds: 0.2 s for an expression, 0.5 s for numbers and
answers in a text of a million repeats, and 3 s for the ranks. A formula that the checks cannot decide ends
at the deadline of the sandbox; four of them at a time should take about one deadline, not four.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from llmctl.msr.evaluation.metrics import rank_counts, user_metrics
from llmctl.tasks.answers import read_answer
from llmctl.tasks.expressions import evaluate_arithmetic
from llmctl.tasks.numbers import bare_number, find_numbers, parse_number, plain
from llmctl.tasks.sandbox import DEADLINE_S, sandbox

EXPRESSIONS = ["9**9**9", "(" * 300 + "1" + ")" * 300, "-" * 400 + "1", "1+" * 400, "9" * 5000]
UNITS = ["1", "1,111", ",111", "1.", " ", "-", "\\frac", "\\text{", "1 ", "1/", "e1", "10^", "{", "\\,"]
FORMULA = "7" * 1_000_000 + "!"


def slowest(work: Callable[[str], object], texts: list[str]) -> float:
    """The most processor seconds that one of the texts takes."""
    seconds = []
    for text in texts:
        began = time.process_time()
        work(text)
        seconds.append(time.process_time() - began)
    return max(seconds)


def read_numbers(text: str) -> None:
    parse_number(text)
    bare_number(text)
    find_numbers(plain(text))


def rank_users(_: str) -> None:
    scores = np.random.default_rng(0).integers(0, 50, (100_000, 21)).astype(float)
    labels = np.zeros(scores.shape, int)
    labels[:, 0] = 1
    user_metrics(rank_counts(scores, labels))


def main() -> None:
    repeated = [unit * 1_000_000 for unit in UNITS]
    print(f"arithmetic expressions: {slowest(evaluate_arithmetic, EXPRESSIONS):.3f} s at most")
    print(f"numbers: {slowest(read_numbers, repeated):.3f} s at most")
    for kind in ("number", "numbers", "text"):
        seconds = slowest(partial(read_answer, kind=kind), repeated)
        print(f"answers of kind {kind}: {seconds:.3f} s at most")
    print(f"ranks of 100,000 users: {slowest(rank_users, ['']):.3f} s")
    box = sandbox()
    box.warm_up("latex")
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: box.judge("latex", (), (FORMULA, "x")), range(4)))
    print(f"four undecidable formulas at a time: {time.monotonic() - began:.2f} s, deadline {DEADLINE_S} s")


if __name__ == "__main__":
    main()
