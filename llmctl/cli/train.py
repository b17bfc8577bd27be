"""`llmctl train`: plain supervised fine-tuning."""

from __future__ import annotations

import typer

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

app = typer.Typer(no_args_is_help=True, help="Supervised fine-tuning with any adapter, or from scratch.")


@app.callback()
def group() -> None:
    """Keep `sft` a command of its own: Typer folds a group of one command into its root."""


@app.command(
    help="Fine-tune on messages, prompts and completions, text, or a task. Goes on where it stopped."
)
def sft(
    recipe: RecipeArgument,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Losses by pass, and a folder that transformers or PEFT loads."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.runs import Run, load_recipe
    from llmctl.training.recipe import SftRecipe

    resolved = load_recipe(SftRecipe, recipe, sets or [])
    if dry_run:
        from llmctl.training.work import estimate_sft

        print_plan(resolved, estimate_sft(resolved), as_json)
        return
    from llmctl.training.inputs import check_sft

    rows = check_sft(resolved)  # before there is a folder, which would hold on to the mistake
    from llmctl.training.sft import run_sft
    from llmctl.training.sft_report import pass_table, verdicts

    with Run.open(run_folder(folder, recipe), resolved, "train sft", fresh) as open_run:
        metrics = run_sft(open_run, resolved, rows=rows, quiet=as_json)
        if as_json:
            print_json(metrics)
            return
        print_table(pass_table(resolved, metrics))
        for sentence in verdicts(metrics):
            print_text(f"- {sentence}")
        print_text(f"model: {open_run.folder / metrics['output']}")
        print_text(f"report: {open_run.folder / 'report.html'}")
