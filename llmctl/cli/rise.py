"""`llmctl rise`: multi-turn fine-tuning in which a model learns to repair its own answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import (
    DryRunOption,
    FreshOption,
    JsonOption,
    RecipeArgument,
    RunOption,
    SetOption,
    Start,
    recipe_command,
)

if TYPE_CHECKING:
    from llmctl.rise.phases import Phases
    from llmctl.rise.recipe import RiseRecipe
    from llmctl.runs import Run

app = typer.Typer(no_args_is_help=True, help="RISE: teach a model to repair its own answers over turns.")

IterationOption = Annotated[int, typer.Option("--iteration", min=1, help="Which round of collect and train.")]
StageOption = Annotated[
    int, typer.Option("--iteration", min=0, help="After which round; 0 is the model as it came.")
]


@recipe_command(
    app,
    "run",
    help="The whole loop: evaluate, collect, train, evaluate, report. Goes on where it was stopped.",
)
def run(start: Start) -> None:
    """Everything a recipe says."""

    def work(open_run: Run, resolved: RiseRecipe) -> dict[str, Any]:
        from llmctl.rise.loop import run_rise

        return run_rise(open_run, resolved, quiet=start.as_json)

    _start("rise run", start, work)


@app.command(help="One phase: roll out the policy and write the training rows of an iteration.")
def collect(
    recipe: RecipeArgument,
    iteration: IterationOption = 1,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Episodes, and an improved response at every state."""

    def work(phases: Phases) -> dict[str, Any]:
        from llmctl.rise import loop

        counts = loop.collect(phases, iteration)
        return {"rows": counts, "data": str(phases.run.folder / f"data/iteration-{iteration}.jsonl")}

    _start_phase("rise collect", Start(recipe, folder, sets, as_json, dry_run, fresh), work, iteration)


@app.command(help="One phase: fine-tune on the rows that an iteration collected.")
def train(
    recipe: RecipeArgument,
    iteration: IterationOption = 1,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Weighted fine-tuning, loss on the last response."""

    def work(phases: Phases) -> dict[str, Any]:
        from llmctl.errors import UserError
        from llmctl.rise import loop

        rows = phases.run.folder / f"data/iteration-{iteration}.jsonl"
        if not rows.is_file():
            raise UserError(f"{rows} is not there: run `llmctl rise collect` for this iteration first")
        result = loop.train(phases, iteration)
        return {
            "output": str(result.output),
            "steps": result.steps,
            "tokens": result.tokens,
            "label_tokens": result.label_tokens,
            "first_loss": result.losses[0],
            "last_loss": result.losses[-1],
            "seconds": round(result.seconds, 1),
        }

    _start_phase("rise train", Start(recipe, folder, sets, as_json, dry_run, fresh), work, iteration)


@app.command("eval", help="One phase: evaluate the model as it came (0), or as an iteration trained it.")
def evaluate(
    recipe: RecipeArgument,
    iteration: StageOption = 0,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """m1@t1, m5@t1, m1@t5, p1@t5, pass@k and the gain at equal compute."""

    def work(phases: Phases) -> dict[str, Any]:
        from llmctl.rise import loop
        from llmctl.rise.metrics import summarize

        figures = summarize(loop.evaluate(phases, iteration), phases.recipe.seed)
        if 0 in loop.evaluated_stages(phases.run, phases.recipe):
            loop.finish(phases.run, phases.recipe)
        return {name: value for name, value in figures.items() if name != "turns"}

    _start_phase("rise eval", Start(recipe, folder, sets, as_json, dry_run, fresh), work, iteration)


@app.command(help="Compare the last evaluations of two runs, problem by problem.")
def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Second minus first, with paired intervals."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.rise.compare import compare_runs
    from llmctl.runs import Table

    found = compare_runs(first, second, seed)
    if as_json:
        print_json(found)
        return
    rows = [[name, f"{figure.format()}"] for name, figure in found["figures"].items()]
    caption = f"{second} minus {first} on {found['n']} shared problems, paired bootstrap, seed {seed}."
    print_table(Table(["figure", "difference"], rows, caption))
    for line in found["differences"]:
        print_text(f"recipes differ: {line}")


def _start_phase(
    command: str, start: Start, work: Callable[[Phases], dict[str, Any]], iteration: int
) -> None:
    def one(open_run: Run, resolved: RiseRecipe) -> dict[str, Any]:
        from llmctl.rise.loop import pin_model
        from llmctl.rise.phases import Phases

        phases = Phases(open_run, resolved, quiet=start.as_json)
        try:
            pin_model(open_run, resolved)
            return work(phases)
        finally:
            phases.close()

    _start(command, start, one, iteration)


def _start(
    command: str, start: Start, work: Callable[[Run, RiseRecipe], dict[str, Any]], iteration: int = 0
) -> None:
    """Resolve the recipe, then show the plan or open the run and do the work."""
    from llmctl.errors import UserError
    from llmctl.rise.estimate import estimate_work
    from llmctl.rise.recipe import RiseRecipe

    resolved = start.load(RiseRecipe)
    if iteration > resolved.iterations:
        raise UserError(
            f"--iteration is {iteration}, but the recipe has {resolved.iterations}: "
            "raise iterations, or give an earlier one"
        )
    if start.is_plan(resolved, lambda: estimate_work(resolved)):
        return
    from llmctl.rise.preflight import check_inputs

    check_inputs(resolved)
    start.carry_out(
        command,
        resolved,
        lambda open_run: work(open_run, resolved),
        lambda open_run, result: _print(open_run, resolved, command, result),
    )


def _print(open_run: Run, recipe: RiseRecipe, command: str, result: dict[str, Any]) -> None:
    """A table, and where everything is."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.rise.report import result_table
    from llmctl.rise.verdict import verdicts
    from llmctl.runs import Table

    if command == "rise run":
        print_table(result_table(recipe, result))
        for sentence in verdicts(recipe, result):
            print_text(f"- {sentence}")
        print_text(f"report: {open_run.folder / 'report.html'}")
        return
    print_table(Table(["", command], [[name, str(value)] for name, value in result.items()]))
    print_text(f"run: {open_run.folder}")
