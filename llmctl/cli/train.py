"""`llmctl train`: supervised fine-tuning."""

from __future__ import annotations

import typer

from llmctl.cli.run_command import add_run_command

app = typer.Typer(
    no_args_is_help=True, help="Supervised fine-tuning with any adapter, or training from scratch."
)


@app.callback()
def group() -> None:
    """Keep `sft` a command of its own: Typer merges a group of one command with its root."""


add_run_command(
    app,
    "train sft",
    "llmctl.training.spec:SFT_RUN",
    help="Fine-tune a model on messages, on prompts and completions, on plain text, or on a task. An "
    "interrupted run continues where it stopped.",
)
