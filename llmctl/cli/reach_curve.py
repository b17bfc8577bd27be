"""`llmctl reach curve`, `optimize`, `merge`, `import` and `compare`: runs over many pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.options import (
    AllowCodeOption,
    AllowHostOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    RunOption,
    SetOption,
)
from llmctl.cli.run_command import Start, add_run_command, carry_out, find_spec

SPEC = "llmctl.reach.curves.spec"

FoldersArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Folders of the runs.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Folder to write to.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    add_run_command(
        app,
        "reach curve",
        f"{SPEC}:CURVE_RUN",
        help="Compute a k-epsilon curve over many states and targets. An interrupted run continues where it "
        "stopped.",
    )
    app.command("merge", help="Merge the shards of one curve; missing or duplicate pairs are refused.")(merge)
    app.command(
        "import", help="Recompute curves from the result CSV files published with Magic Words, and draw them."
    )(import_published)
    add_run_command(
        app,
        "reach optimize",
        "llmctl.reach.universal.spec:OPTIMIZE_RUN",
        help="Search one control prompt for a whole data set, and score it on held-out pairs. An interrupted "
        "run continues where it stopped.",
    )
    app.command(
        "compare",
        help="Compare several models on the same pairs: give a recipe of kind reach-compare, or the folders "
        "of two or more finished curves.",
    )(compare)


def merge(
    folders: FoldersArgument,
    out: Annotated[Path, typer.Option("--run", metavar="DIR", help="Folder to write to.")],
    as_json: JsonOption = False,
    fresh: FreshOption = False,
) -> None:
    """Write one curve from its shards."""
    from llmctl.cli.output import print_json, print_shown
    from llmctl.reach.curves.merge import finish_merge, merge_runs
    from llmctl.reach.curves.spec import show_curve
    from llmctl.runs import Run

    recipe, journals = merge_runs(folders)
    with Run.open(out, recipe, "reach merge", fresh) as run:
        metrics = finish_merge(run, recipe, journals)
        if as_json:
            print_json(metrics)
        else:
            print_shown(show_curve(run, recipe, metrics))


def import_published(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="CSV files of results, or folders of them.", show_default=False
        ),
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            help="Folder of a run, or name of a published curve, to draw for comparison. Can be repeated.",
        ),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    fresh: FreshOption = False,
) -> None:
    """Print one curve per path."""
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
        typer.Argument(
            metavar="RECIPE | RUN RUN...",
            help="A recipe, or the folders of two or more finished runs.",
            show_default=False,
        ),
    ],
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Print the paired differences in epsilon, with intervals."""
    from llmctl.cli.output import print_json, print_shown
    from llmctl.errors import UserError
    from llmctl.reach.curves.compare import compare_runs
    from llmctl.reach.curves.spec import show_comparison

    if len(what) == 1:
        if Path(what[0]).is_dir():
            raise UserError(
                f"{what[0]} is one run, but a comparison needs two or more, or a recipe of kind reach-compare"
            )
        start = Start(what[0], folder, sets, as_json, dry_run, fresh)
        carry_out("reach compare", find_spec(f"{SPEC}:COMPARE_RUN"), start)
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
        print_shown(show_comparison(found))
