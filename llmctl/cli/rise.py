"""`llmctl rise`: fine-tuning over several turns, in which a model learns to correct its own answers."""

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
    RecipeArgument,
    RunOption,
    SetOption,
)
from llmctl.cli.run_command import Start, add_run_command, carry_out, find_spec

SPEC = "llmctl.rise.spec"

app = typer.Typer(
    no_args_is_help=True, help="RISE: teach a model to correct its own answers over several turns."
)

IterationOption = Annotated[
    int, typer.Option("--iteration", min=1, help="The round of collection and training, from 1.")
]
StageOption = Annotated[
    int,
    typer.Option("--iteration", min=0, help="Evaluate after this round of training; 0 is the base model."),
]

add_run_command(
    app,
    "rise run",
    f"{SPEC}:RISE_RUN",
    help="Run the whole loop: evaluate, collect, train, evaluate again, write a report. An interrupted run "
    "continues where it stopped.",
)


@app.command(help="Run one phase: sample the episodes of an iteration and write its training rows.")
def collect(
    recipe: RecipeArgument,
    iteration: IterationOption = 1,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Sample episodes, and an improved response for every state."""
    spec = find_spec(f"{SPEC}:collect_spec")(iteration)
    carry_out("rise collect", spec, Start(recipe, folder, sets, as_json, dry_run, fresh))


@app.command(help="Run one phase: fine-tune the model on the rows that an iteration collected.")
def train(
    recipe: RecipeArgument,
    iteration: IterationOption = 1,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Train on weighted rows, with loss on the last response only."""
    spec = find_spec(f"{SPEC}:train_spec")(iteration)
    carry_out("rise train", spec, Start(recipe, folder, sets, as_json, dry_run, fresh))


@app.command("eval", help="Run one phase: evaluate the base model (0), or the model after an iteration.")
def evaluate(
    recipe: RecipeArgument,
    iteration: StageOption = 0,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Measure accuracy by turn, majority votes, pass@k and the gain at equal compute."""
    spec = find_spec(f"{SPEC}:evaluate_spec")(iteration)
    carry_out("rise eval", spec, Start(recipe, folder, sets, as_json, dry_run, fresh))


@app.command(help="Compare the last evaluations of two runs, problem by problem.")
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of the first run.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of the second run.", show_default=False)],
    seed: Annotated[int, typer.Option("--seed", help="Seed for the bootstrap.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Print the second run minus the first, with paired intervals."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.rise.compare import compare_runs
    from llmctl.runs import Table

    found = compare_runs(first, second, seed)
    if as_json:
        print_json(found)
        return
    rows = [[name, f"{metric.format()}"] for name, metric in found["figures"].items()]
    caption = f"{second} minus {first} on {found['n']} shared problems, paired bootstrap, seed {seed}."
    print_table(Table(["metric", "difference"], rows, caption))
    for line in found["differences"]:
        print_text(f"recipes differ: {line}")
