"""Plain arithmetic and algebra read from text by Python's grammar, and never run.

`ast.parse` builds a tree; only the node types named here are turned into numbers or sympy objects. Any
other text (names, attributes, calls of anything else) gives None.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

MAX_CHARS = 500
MAX_DEPTH = 40
MAX_DIGITS = 12  # of one number

_FUNCTIONS = (
    "sin",
    "cos",
    "tan",
    "exp",
    "log",
    "sqrt",
    "sinh",
    "cosh",
    "tanh",
    "asin",
    "acos",
    "atan",
    "Abs",
)


class _Refused(Exception):
    """The text holds something that isn't arithmetic."""


def evaluate_arithmetic(text: str) -> tuple[Fraction, list[int]] | None:
    """The value of an expression of whole numbers, + - * / and brackets.

    Args:
        text: Such as "94*4 - 61 - 6".

    Returns:
        The exact value and the numbers used, in order; None where the text is something else, divides by
        zero or is beyond this module's limits.
    """
    used: list[int] = []

    def number(value: int | float) -> Fraction:
        if not isinstance(value, int):
            raise _Refused
        used.append(value)
        return Fraction(value)

    operations: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
    }
    try:
        return _build(_tree(text), number, {}, operations), used
    except (_Refused, ZeroDivisionError):
        return None


def build_algebra(text: str, names: Mapping[str, Any]) -> Any | None:
    """A sympy expression from text; call it in the sandbox, for sympy simplifies while it builds.

    Args:
        text: Such as "-4*(-2*x - 8)**(3/2)/3 + C".
        names: What names stand for, such as {"x": Symbol("x")}; E and pi are known.

    Returns:
        The expression, or None where the text is something else or beyond this module's limits.
    """
    import sympy

    def number(value: int | float) -> Any:
        return sympy.Integer(value) if isinstance(value, int) else sympy.Float(value)

    known = {"E": sympy.E, "pi": sympy.pi, "ln": sympy.log, **names}
    known.update({name: getattr(sympy, name) for name in _FUNCTIONS})
    operations: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
        ast.Add: lambda a, b: sympy.Add(a, b),
        ast.Sub: lambda a, b: sympy.Add(a, -b),
        ast.Mult: lambda a, b: sympy.Mul(a, b),
        ast.Div: lambda a, b: sympy.Mul(a, sympy.Pow(b, -1)),
        ast.Pow: lambda a, b: sympy.Pow(a, b),
    }
    try:
        return _build(_tree(text), number, known, operations)
    except _Refused:
        return None


def _tree(text: str) -> ast.expr:
    text = text.strip()
    if not text or len(text) > MAX_CHARS:
        raise _Refused
    try:
        with (
            warnings.catch_warnings()
        ):  # "2(3+4)" is a syntax warning of the parser, and no concern of a user
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Refused from error


def _build(
    node: ast.expr,
    number: Callable[[int | float], Any],
    names: Mapping[str, Any],
    operations: Mapping[type[ast.operator], Callable[[Any, Any], Any]],
    depth: int = 0,
) -> Any:
    if depth > MAX_DEPTH:
        raise _Refused

    def part(child: ast.expr) -> Any:
        return _build(child, number, names, operations, depth + 1)

    match node:
        case ast.Constant(value=int() | float() as value) if abs(value) < 10**MAX_DIGITS:
            if isinstance(value, bool):
                raise _Refused
            return number(value)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in operations:
            return operations[type(op)](part(left), part(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -part(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return part(operand)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in names:
            if name not in _FUNCTIONS and name != "ln":
                raise _Refused
            return names[name](part(argument))
        case ast.Name(id=name) if name in names and name not in _FUNCTIONS and name != "ln":
            return names[name]
        case _:
            raise _Refused
