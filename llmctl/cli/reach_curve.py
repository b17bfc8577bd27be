"""`llmctl reach curve`, `merge`, `import` and `compare`: many pairs, in run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import DryRunOption, FreshOption, JsonOption, RunOption, SetOption, Start

if TYPE_CHECKING:
    from llmctl.runs import Run

CURVE_HELP = "A k-epsilon curve over many states and targets. Goes on where it was stopped."
MERGE_HELP = "Put the shards of one curve together; refuses missing or doubled pairs."
IMPORT_HELP = "Recompute curves from the result CSVs that Magic Words published, and draw them."
COMPARE_HELP = (
    "The same pairs on several models: a recipe of kind reach-compare, or two or more finished curves."
)

FoldersArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="The folder to write.")]


def curve(start: Start) -> None:
    """Search every pair of a recipe."""
    from llmctl.reach.curves.preflight import check_curve, estimate_work
    from llmctl.reach.curves.recipe import CurveRecipe

    resolved = start.load(CurveRecipe)
    if start.is_plan(resolved, lambda: estimate_work(resolved)):
        return
    check_curve(resolved)
    from llmctl.reach.curves.run import run_curve

    start.carry_out(
        "reach curve",
        resolved,
        lambda run: run_curve(run, resolved, quiet=start.as_json),
        lambda run, metrics: _print_curve(run, resolved, metrics),
    )


def _print_curve(run: Run, recipe: Any, metrics: dict[str, Any]) -> None:
    from llmctl.cli.output import print_table, print_text
    from llmctl.reach.curves.known import known_curve
    from llmctl.reach.curves.report import epsilon_table, sentences

    print_table(epsilon_table(metrics, [known_curve(source) for source in recipe.beside]))
    for sentence in sentences(recipe, metrics):
        print_text(f"- {sentence}")
    print_text(f"report: {run.folder / 'report.html'}")


def merge(
    folders: FoldersArgument,
    out: Annotated[Path, typer.Option("--run", metavar="DIR", help="The folder to write.")],
    as_json: JsonOption = False,
    fresh: FreshOption = False,
) -> None:
    """One curve from its shards."""
    from llmctl.cli.output import print_json
    from llmctl.reach.curves.merge import merge_runs
    from llmctl.runs import Run

    recipe, journals = merge_runs(folders)
    with Run.open(out, recipe, "reach merge", fresh) as run:
        from llmctl.reach.curves.merge import finish_merge

        metrics = finish_merge(run, recipe, journals)
        if as_json:
            print_json(metrics)
        else:
            _print_curve(run, recipe, metrics)


def import_published(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Result CSVs, or folders of them.", show_default=False),
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help="A run's folder or a published curve to draw beside; may be repeated."),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    fresh: FreshOption = False,
) -> None:
    """One curve a path."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.reach.curves.imported import ImportRecipe, import_curves, imported_table, write_import

    recipe = ImportRecipe(paths=tuple(paths), beside=tuple(beside or ()))
    found = import_curves(recipe)
    if out is not None:
        from llmctl.runs import Run

        with Run.open(out, recipe, "reach import", fresh) as run:
            write_import(run, recipe, found)
    if as_json:
        print_json({name: curve.to_dict() for name, curve in found.items()})
        return
    print_table(imported_table(found))
    if out is not None:
        print_text(f"report: {out / 'report.html'}")


def compare(
    what: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE | RUN RUN...", help="See above.", show_default=False),
    ],
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Paired differences in epsilon, with intervals."""
    from llmctl.cli.output import print_json
    from llmctl.errors import UserError
    from llmctl.reach.curves.compare import compare_runs

    if len(what) == 1:
        _run_comparison(Start(what[0], folder, sets, as_json, dry_run, fresh))
        return
    if sets or dry_run or fresh or folder is not None:
        raise UserError(
            "--run, --set, --dry-run and --fresh are for a recipe, but finished runs are given: "
            "leave them out"
        )
    found = compare_runs([Path(name) for name in what])
    if as_json:
        print_json(found)
    else:
        _print_comparison(found)


def _run_comparison(start: Start) -> None:
    """Run what a comparison's recipe asks for."""
    from llmctl.cli.output import print_text
    from llmctl.errors import UserError
    from llmctl.reach.curves.compare import (
        CompareRecipe,
        check_comparison,
        estimate_comparison,
        run_comparison,
    )

    if Path(start.recipe).is_dir():
        raise UserError(
            f"{start.recipe} is one run, but a comparison needs two or more, or a recipe of kind "
            "reach-compare"
        )
    resolved = start.load(CompareRecipe)
    if start.is_plan(resolved, lambda: estimate_comparison(resolved)):
        return
    check_comparison(resolved)

    def show(run: Run, found: dict[str, Any]) -> None:
        _print_comparison(found)
        print_text(f"report: {run.folder / 'report.html'}")

    start.carry_out(
        "reach compare", resolved, lambda run: run_comparison(run, resolved, quiet=start.as_json), show
    )


def _print_comparison(found: dict[str, Any]) -> None:
    from llmctl.cli.output import print_table, print_text
    from llmctl.reach.curves.compare import comparison_sentences, comparison_table

    print_table(comparison_table(found))
    for sentence in comparison_sentences(found):
        print_text(f"- {sentence}")
