"""A comparison of curves as a table and in sentences."""

from __future__ import annotations

from typing import Any

from llmctl.reach.curves.compare_records import CurveComparison, CurveDifference
from llmctl.runs import Estimate, Table


def comparison_table(found: CurveComparison) -> Table:
    """Epsilon of every model by k, and its difference from the reference."""
    columns = ["k", found.reference]
    for name in found.differences:
        columns += [name, f"{name} - {found.reference}"]
    rows = []
    for k, own in found.curves[found.reference].items():
        row: list[Any] = [int(k), _show(own)]
        for name, difference in found.differences.items():
            row += [_show(found.curves[name][k]), _show(difference.epsilon[k], sign=True)]
        rows.append(row)
    return Table(
        columns,
        rows,
        f"Epsilon on {found.pairs} pairs at {found.states} states; differences are paired, intervals "
        "clustered by state.",
    )


def comparison_sentences(found: CurveComparison) -> list[str]:
    """What the comparison shows at the longest k, and at what cost."""
    said = [sentence for name in found.differences for sentence in _difference_sentences(found, name)]
    for name, changed in found.recipes.items():
        said.append(f"{name} was searched with other settings: {', '.join(changed)}.")
    spent = ", ".join(f"{name} {tokens:,}" for name, tokens in found.forward_tokens.items())
    return [*said, f"Forward tokens spent: {spent}."]


def _difference_sentences(found: CurveComparison, name: str) -> list[str]:
    difference = found.differences[name]
    k, last = list(difference.epsilon.items())[-1]
    counts = f"{difference.gained} pairs gained, {difference.lost} lost"
    if last is None or last.low is None or last.high is None or last.value is None:
        return [f"{name}: one state alone gives no interval ({counts}, of {found.pairs}, at k <= {k})."]
    word = "neither harder nor easier, by this sample,"
    if last.low > 0 or last.high < 0:
        word = "harder" if last.value > 0 else "easier"
    said = [
        f"{name} is {word} to control than {found.reference}: at k <= {k} epsilon differs by "
        f"{_show(last, sign=True)} ({counts})."
    ]
    return said + _length_sentences(name, difference)


def _length_sentences(name: str, difference: CurveDifference) -> list[str]:
    if difference.k is None:
        return []
    return [
        f"Where both were reached, {name} needs {_show(difference.k, sign=True)} tokens more "
        f"(n = {difference.k.n})."
    ]


def _show(metric: Estimate | None, sign: bool = False) -> str | None:
    if metric is None or metric.value is None:
        return None
    form = "+.3f" if sign else ".3f"
    if metric.low is None:
        return f"{metric.value:{form}} (no interval)"
    return f"{metric.value:{form}} [{metric.low:{form}}, {metric.high:{form}}]"
