"""`llmctl train`: plain supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from llmctl.cli.options import Start, recipe_command

if TYPE_CHECKING:
    from llmctl.runs import Run

app = typer.Typer(no_args_is_help=True, help="Supervised fine-tuning with any adapter, or from scratch.")


@app.callback()
def group() -> None:
    """Keep `sft` a command of its own: Typer folds a group of one command into its root."""


@recipe_command(
    app,
    "sft",
    help="Fine-tune on messages, prompts and completions, text, or a task. Goes on where it stopped.",
)
def sft(start: Start) -> None:
    """Losses by pass, and a folder that transformers or PEFT loads."""
    from llmctl.training.estimate import estimate_sft
    from llmctl.training.recipe import SftRecipe

    resolved = start.load(SftRecipe)
    if start.is_plan(resolved, lambda: estimate_sft(resolved)):
        return
    from llmctl.training.preflight import check_sft

    rows = check_sft(resolved)
    from llmctl.training.sft import run_sft

    def show(run: Run, metrics: dict[str, Any]) -> None:
        from llmctl.cli.output import print_table, print_text
        from llmctl.training.sft_report import pass_table, verdicts

        print_table(pass_table(resolved, metrics))
        for sentence in verdicts(metrics):
            print_text(f"- {sentence}")
        print_text(f"model: {run.folder / metrics['output']}")
        print_text(f"report: {run.folder / 'report.html'}")

    start.carry_out(
        "train sft", resolved, lambda run: run_sft(run, resolved, rows=rows, quiet=start.as_json), show
    )
