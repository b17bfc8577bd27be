"""`llmctl compare`: two evaluation logs, whichever tool made them, sample by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.options import JsonOption

if TYPE_CHECKING:
    from llmctl.jobs.logs.paired import LogComparison, PairedDifference
    from llmctl.runs import Table

app = typer.Typer()
LogArgument = Annotated[
    str,
    typer.Argument(
        metavar="LOG",
        show_default=False,
        help="An .eval or .json log of inspect_ai, a samples_*.jsonl file of lm-eval, a folder of either, "
        "or an llmctl job (FOLDER or FOLDER:MODEL).",
    ),
]
_HELP = (
    "Compare two evaluation logs sample by sample: inspect_ai, lm-eval or llmctl. Needs no model. Prints the "
    "paired difference (second minus first) with its 95 % interval, an exact test adjusted for the number of "
    "comparisons, and the smallest difference that so many samples could have shown."
)


@app.command(help=_HELP)
def compare(
    first: LogArgument,
    second: LogArgument,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Compare this metric alone.", show_default="all"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read both logs, compare, and print."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.jobs.logs import compare_logs, read_log

    found = compare_logs(read_log(first), read_log(second), metric)
    if as_json:
        print_json(found.to_dict())
        return
    for name, log in (("first", found.first), ("second", found.second)):
        print_text(f"{name}:  {log.model} ({log.tool}, {log.path})")
    print_table(comparison_table(found))
    for sentence in sentences(found):
        print_text(f"- {sentence}")


def comparison_table(found: LogComparison) -> Table:
    """One row per task and metric."""
    from llmctl.runs import Table

    columns = [
        "task",
        "metric",
        "n",
        "first",
        "second",
        "difference",
        "wins : losses",
        "p (exact)",
        "p (Holm)",
    ]
    rows = [
        [
            one.task,
            one.metric,
            one.n,
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{one.value:+.3f}" + ("" if one.low is None else f" [{one.low:+.3f}, {one.high:+.3f}]"),
            f"{one.wins} : {one.losses}",
            f"{one.p_exact:.3g}",
            f"{one.p_holm:.3g}",
        ]
        for one in found.differences
    ]
    caption = "Second minus first on the samples that both scored, with 95 % intervals."
    return Table(columns, rows, caption)


def sentences(found: LogComparison) -> list[str]:
    """What the table means, a sentence per comparison, and what was left out."""
    said = []
    for one in found.differences:
        name = f"{one.task}, {one.metric}"
        if one.verdict == "not decided":
            said.append(f"{name}: not decided. {_power(one)}")
        else:
            said.append(f"{name}: the {one.verdict.split()[0]} is better (p = {one.p_holm:.3g} after Holm).")
        if one.left_out or any(one.errors):
            said.append(
                f"{name}: {one.left_out} samples are left out (in one log alone, or another question); "
                f"{one.errors[0]} and {one.errors[1]} have no score because of an error."
            )
    return [*said, *found.notes]


def _power(one: PairedDifference) -> str:
    if one.detectable is None:
        return "The scores do not vary."
    text = f"{one.n} samples show a difference of {one.detectable:.3f} or more in 8 of 10 cases"
    if one.needed is None:
        return f"{text}."
    return f"{text}; showing {abs(one.value):.3f} would take about {one.needed:,}."
