"""How answers to reasoning-gym problems are scored without evaluating them.

Some of reasoning-gym's scorers run the answer through `eval` or `sympy.parse_expr`, which evaluates too.
Here are scorers of our own for the data sets where more than one answer is right; for the others such a
scorer's evaluation only earns part of a score, and the sandbox refuses it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from llmctl.tasks.expressions import build_algebra, evaluate_arithmetic
from llmctl.tasks.gym_exact import EXACT_SCORERS, Entry, has_form

SUCCESS = 0.99  # scores are not 0 or 1: a wrong answer may earn a part, only this is right


def make_config(name: str, options: Mapping[str, Any]) -> Any:
    """A data set's validated configuration; "composite" takes its `datasets` as plain mappings."""
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS

    given = dict(options)
    if name == "composite":
        given["datasets"] = [
            DatasetSpec(spec["name"], spec.get("weight", 1.0), dict(spec.get("config") or {}))
            for spec in given.get("datasets") or []
        ]
    config = DATASETS[name][1](**given)
    if hasattr(config, "validate"):
        config.validate()
    return config


def make_dataset(name: str, options: Mapping[str, Any]) -> Any:
    """A reasoning-gym data set."""
    from reasoning_gym.factory import DATASETS

    return DATASETS[name][0](config=make_config(name, options))


def make_scorer(name: str, options: str) -> Callable[[str, Entry], float]:
    """The score of an answer, from 0 to 1; for the sandbox.

    Args:
        name: The data set.
        options: Its configuration as JSON.
    """
    dataset = make_dataset(name, json.loads(options))
    import sympy.integrals.manualintegrate
    import sympy.physics.units  # noqa: F401  # both on first use by simplify, which is too late in a child

    def score(answer: str, entry: Entry) -> float:
        source = source_of(entry, name)
        if not has_form(answer, source):
            return 0.0
        own = own_scorer(source)
        return float(own(answer, entry) if own else dataset.score_answer(answer=answer, entry=entry))

    return score


def source_of(entry: Entry, name: str) -> str:
    """The data set that an entry comes from; within a composite, that of the part."""
    return str(entry["metadata"].get("source_dataset", name))


def _countdown(answer: str, entry: Entry) -> float:
    return _reaches(answer, entry["metadata"]["numbers"], entry["metadata"]["target"])


def _puzzle24(answer: str, entry: Entry) -> float:
    return _reaches(answer, entry["metadata"]["numbers"], 24)


def _reaches(answer: str, numbers: list[int], target: int) -> float:
    """1 where an expression uses each number once and gives the target."""
    result = evaluate_arithmetic(answer)
    return float(result is not None and result[0] == target and sorted(result[1]) == sorted(numbers))


def _bitwise(answer: str, entry: Entry) -> float:
    """1 for the number itself, in hexadecimal (0x...), binary, octal or decimal."""
    try:
        return float(len(answer) < 1000 and int(answer, 0) == int(entry["answer"], 0))
    except ValueError:
        return 0.0


def _polynomial(answer: str, entry: Entry) -> float:
    """1 for the expanded product, terms in any order."""
    import sympy

    names = {name: sympy.Symbol(name) for name in entry["metadata"]["variables"]}
    given, reference = build_algebra(answer, names), build_algebra(entry["answer"], names)
    return float(given is not None and given == reference)


def _integral(answer: str, entry: Entry) -> float:
    """1 for any antiderivative of the integrand."""
    import sympy

    variable = sympy.Symbol(entry["metadata"]["variable"])
    names = {variable.name: variable, "C": sympy.Symbol("C")}
    given, integrand = build_algebra(answer, names), build_algebra(entry["metadata"]["integrand"], names)
    if given is None or integrand is None:
        return 0.0
    return float(sympy.simplify(sympy.diff(given, variable) - integrand) == 0)


def own_scorer(source: str) -> Callable[[str, Entry], float] | None:
    """The scorer that is used in place of the data set's own; None where the data set's own is used."""
    return OWN_SCORERS.get(source) or EXACT_SCORERS.get(source)


OWN_SCORERS: dict[str, Callable[[str, Entry], float]] = {
    "countdown": _countdown,
    "puzzle24": _puzzle24,
    "bitwise_arithmetic": _bitwise,
    "polynomial_multiplication": _polynomial,
    "simple_integration": _integral,
    "intermediate_integration": _integral,
}
# Bounded by themselves: these need no sandbox.
CHEAP_SCORERS = ("countdown", "puzzle24", "bitwise_arithmetic", *EXACT_SCORERS)
EVALUATING = (
    "string_insertion",
    "spiral_matrix",
    "binary_matrix",
    "n_queens",
)  # for a part of the score only
