"""`llmctl reach optimize`: one control prompt for a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.cli.options import (
    DryRunOption,
    FreshOption,
    JsonOption,
    RecipeArgument,
    RunOption,
    SetOption,
    print_plan,
    run_folder,
)

if TYPE_CHECKING:
    from llmctl.reach.optimize_recipe import OptimizeRecipe
    from llmctl.runs import Run


def optimize(
    recipe: RecipeArgument,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Find one control for many questions, and score it on held-out ones. Goes on where it was stopped."""
    from llmctl.cli.output import print_json
    from llmctl.reach.optimize_recipe import OptimizeRecipe
    from llmctl.reach.optimize_run import check_inputs, estimate_work, run_optimize
    from llmctl.runs import Run, load_recipe

    resolved = load_recipe(OptimizeRecipe, recipe, sets or [])
    data = check_inputs(resolved)  # before there is a folder, which would hold on to the mistake
    if dry_run:
        print_plan(resolved, estimate_work(resolved, data), as_json)
        return
    with Run.open(run_folder(folder, recipe), resolved, "reach optimize", fresh) as open_run:
        metrics = run_optimize(open_run, resolved, data, quiet=as_json)
        if as_json:
            print_json(metrics)
        else:
            _print(open_run, resolved, metrics)


def _print(open_run: Run, recipe: OptimizeRecipe, metrics: dict[str, Any]) -> None:
    """The scores, what they mean, and where everything is."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.reach.optimize_report import score_table, sentences

    report: Path = open_run.folder / "report.html"
    print_table(score_table(recipe, metrics))
    print_text(f"control: {metrics['control']['text']!r}, ids {metrics['control']['ids']}")
    for sentence in sentences(recipe, metrics):
        print_text(f"- {sentence}")
    print_text(f"report: {report}")
