"""`llmctl reach optimize`: one control prompt for a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.cli.options import Start

if TYPE_CHECKING:
    from llmctl.reach.universal.recipe import OptimizeRecipe
    from llmctl.runs import Run


HELP = "One control prompt for a whole data set, scored on held-out pairs. Goes on where it was stopped."


def optimize(start: Start) -> None:
    """Find one control for many questions."""
    from llmctl.reach.universal.recipe import OptimizeRecipe
    from llmctl.reach.universal.run import check_inputs, estimate_work, run_optimize

    resolved = start.load(OptimizeRecipe)
    data = check_inputs(resolved)
    if start.is_plan(resolved, lambda: estimate_work(resolved, data)):
        return
    start.carry_out(
        "reach optimize",
        resolved,
        lambda run: run_optimize(run, resolved, data, quiet=start.as_json),
        lambda run, metrics: _print(run, resolved, metrics),
    )


def _print(open_run: Run, recipe: OptimizeRecipe, metrics: dict[str, Any]) -> None:
    """The scores, what they mean, and where everything is."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.reach.universal.report import score_table, sentences

    report: Path = open_run.folder / "report.html"
    print_table(score_table(recipe, metrics))
    print_text(f"control: {metrics['control']['text']!r}, ids {metrics['control']['ids']}")
    for sentence in sentences(recipe, metrics):
        print_text(f"- {sentence}")
    print_text(f"report: {report}")
