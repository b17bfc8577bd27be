"""The runs of RISE: the whole loop, and each of its phases alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmctl.errors import UserError
from llmctl.rise import loop
from llmctl.rise.estimate import estimate_work
from llmctl.rise.metrics import summarize
from llmctl.rise.phases import Phases, Tasks
from llmctl.rise.preflight import check_inputs
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.report import result_table
from llmctl.rise.verdict import verdicts
from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec, Shown

PhaseSpec = RunSpec[RiseRecipe, Tasks, dict[str, Any]]


def show_run(run: Run, recipe: RiseRecipe, metrics: dict[str, Any]) -> Iterator[Table | str]:
    """The metrics before and after, what they show, and where the report is."""
    yield result_table(recipe, metrics)
    yield from (f"- {sentence}" for sentence in verdicts(recipe, metrics))
    yield f"report: {run.folder / 'report.html'}"


RISE_RUN: PhaseSpec = RunSpec(
    recipe=RiseRecipe,
    preflight=check_inputs,
    estimate=estimate_work,
    execute=lambda run, recipe, tasks, quiet: loop.run_rise(run, recipe, tasks=tasks, quiet=quiet),
    show=show_run,
)


def collect_spec(iteration: int) -> PhaseSpec:
    """Collect the episodes of an iteration (from 1) and write its training rows."""

    def work(phases: Phases) -> dict[str, Any]:
        counts = loop.collect(phases, iteration)
        return {"rows": counts, "data": str(phases.run.folder / f"data/iteration-{iteration}.jsonl")}

    return _phase_spec("rise collect", iteration, work)


def train_spec(iteration: int) -> PhaseSpec:
    """Train on the rows that an iteration (from 1) collected."""

    def work(phases: Phases) -> dict[str, Any]:
        rows = phases.run.folder / f"data/iteration-{iteration}.jsonl"
        if not rows.is_file():
            raise UserError(f"{rows} does not exist: run `llmctl rise collect` for this iteration first")
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

    return _phase_spec("rise train", iteration, work)


def evaluate_spec(iteration: int) -> PhaseSpec:
    """Evaluate the base model (0), or the model that an iteration trained."""

    def work(phases: Phases) -> dict[str, Any]:
        recipe = phases.recipe
        metrics = summarize(loop.evaluate(phases, iteration), recipe.seed, recipe.evaluate.turns)
        if 0 in loop.evaluated_stages(phases.run, recipe):
            loop.finish(phases.run, recipe)
        return {name: value for name, value in metrics.items() if name != "turns"}

    return _phase_spec("rise eval", iteration, work)


def _phase_spec(command: str, iteration: int, work: Callable[[Phases], dict[str, Any]]) -> PhaseSpec:
    def check(recipe: RiseRecipe) -> Tasks:
        check_iteration(recipe, iteration)
        return check_inputs(recipe)

    def estimate(recipe: RiseRecipe) -> dict[str, Any]:
        check_iteration(recipe, iteration)
        return estimate_work(recipe)

    def show(run: Run, recipe: RiseRecipe, result: dict[str, Any]) -> Shown:
        return [
            Table(["", command], [[name, str(value)] for name, value in result.items()]),
            f"run: {run.folder}",
        ]

    return RunSpec(
        recipe=RiseRecipe,
        preflight=check,
        estimate=estimate,
        execute=lambda run, recipe, tasks, quiet: loop.run_phase(run, recipe, work, tasks, quiet=quiet),
        show=show,
    )


def check_iteration(recipe: RiseRecipe, iteration: int) -> None:
    """Refuse an iteration that the recipe does not have.

    Raises:
        UserError: There are fewer iterations.
    """
    if iteration > recipe.iterations:
        raise UserError(
            f"--iteration is {iteration}, but the recipe has {recipe.iterations}: "
            "raise iterations, or give an earlier one"
        )
