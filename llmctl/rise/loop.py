"""The whole run: evaluate, collect and train for each iteration, evaluate again, write the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from llmctl.errors import UserError
from llmctl.models.description import fingerprints
from llmctl.rise.chunks import read_episodes, read_evaluations
from llmctl.rise.estimate import FINISHED
from llmctl.rise.metrics import paired_gains, summarize
from llmctl.rise.phases import Phases, Tasks
from llmctl.rise.preflight import check_inputs
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.records import Episode, Evaluation
from llmctl.rise.report import write_rise_report
from llmctl.runs import Run
from llmctl.runs.files import read_json
from llmctl.runs.timing import seconds_by_phase
from llmctl.training.result import read_result

R = TypeVar("R")


def run_rise(
    run: Run, recipe: RiseRecipe, *, tasks: Tasks | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Do what is missing of a RISE run; its folder then holds the metrics and the report.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        tasks: What `check_inputs` returned; None runs the checks here.
        quiet: Whether to leave out progress bars.

    Returns:
        The content of `metrics.json`.

    Raises:
        UserError: The model, the task or the data cannot be used, or no collected response can be trained on.
    """
    run_phase(run, recipe, run_all, check_inputs(recipe) if tasks is None else tasks, quiet=quiet)
    return finish(run, recipe)


def run_phase(
    run: Run, recipe: RiseRecipe, work: Callable[[Phases], R], tasks: Tasks, *, quiet: bool = False
) -> R:
    """Do some phases of a run.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        work: The phases to do.
        tasks: What `check_inputs` returned.
        quiet: No progress.

    Returns:
        What `work` returned.
    """
    phases = Phases(run, recipe, tasks, quiet)
    try:
        pin_model(run, recipe)
        return work(phases)
    finally:
        phases.close()


def run_all(phases: Phases) -> None:
    """Evaluate the base model, then collect, train and evaluate as often as the recipe says."""
    recipe = phases.recipe
    evaluate(phases, 0)
    for iteration in range(1, recipe.iterations + 1):
        collect(phases, iteration)
        train(phases, iteration)
        if recipe.evaluate.each_iteration or iteration == recipe.iterations:
            evaluate(phases, iteration)


def pin_model(run: Run, recipe: RiseRecipe) -> None:
    """Refuse to continue with other weights than the run was started with."""
    model = None if recipe.sampler.engine == "server" else recipe.model  # its weights cannot be read
    run.pin(**fingerprints(model, recipe.adapter))


def evaluate(phases: Phases, iteration: int) -> list[Evaluation]:
    """Evaluate the base model (0), or the model that an iteration trained."""
    policy = phases.base if iteration == 0 else phases.policy(iteration)
    return phases.evaluate(iteration, policy)


def collect(phases: Phases, iteration: int) -> dict[str, Any]:
    """Collect an iteration's episodes, and write its training rows."""
    if iteration == 1:
        phases.warm_start()
    phases.collect(iteration, phases.policy(iteration - 1))
    counts = phases.build_rows(iteration)
    phases.run.write_json(f"data/iteration-{iteration}.counts.json", counts)
    return counts


def train(phases: Phases, iteration: int) -> Any:
    """Train on an iteration's rows."""
    return phases.train(iteration, phases.policy(iteration - 1))


def finish(run: Run, recipe: RiseRecipe) -> dict[str, Any]:
    """Compute the metrics from the journals, and write `metrics.json` and the report."""
    stages = evaluated_stages(run, recipe)
    if 0 not in stages:
        raise UserError(
            f"{run.folder} has no complete evaluation of the base model yet: run `llmctl rise eval`"
        )
    metrics: dict[str, Any] = {"seed": recipe.seed}
    turns = recipe.evaluate.turns
    figures = {stage: summarize(records, recipe.seed, turns) for stage, records in stages.items()}
    first, last = min(stages), max(stages)
    metrics["before"] = figures[first]
    if last > first:
        metrics["after"] = figures[last]
        metrics["gain"] = paired_gains(stages[first], stages[last], recipe.seed, turns)
    metrics["iterations"] = {str(stage): found for stage, found in figures.items() if first < stage < last}
    metrics["collection"] = {str(i): collection_counts(run, i) for i in range(1, recipe.iterations + 1)}
    metrics["rows"] = row_counts(run, recipe)
    metrics["seconds"], metrics["tokens"] = costs(run, recipe)
    run.write_metrics(metrics)
    write_rise_report(run, recipe, metrics, stages)
    return metrics


def evaluated_stages(run: Run, recipe: RiseRecipe) -> dict[int, list[Evaluation]]:
    """The records of every completely evaluated stage, by iteration."""
    found = {}
    finished = run.journal(FINISHED)
    for stage in range(recipe.iterations + 1):
        if f"evaluate-{stage}" in finished:
            found[stage] = list(read_evaluations(run, stage))
    return found


def collection_counts(run: Run, iteration: int) -> dict[str, Any]:
    """Counts of a collection: episodes, responses, repeats, degenerate and failed ones, solved per turn."""
    counts: Counter[str] = Counter()
    for episode in read_episodes(run, iteration):
        _count(episode, counts)
    return dict(counts)


def _count(episode: Episode, counts: Counter[str]) -> None:
    counts["episodes"] += 1
    for number, turn in enumerate(episode.turns, 1):
        counts["attempts"] += 1
        counts["unreadable"] += turn.reward < 0 and turn.error is None
        counts[f"solved at turn {number}"] += turn.is_correct
    for state in episode.states:
        counts["errors"] += state.errors
        counts["samples"] += len(state.rewards)
        counts["repeats dropped"] += state.repeats
        counts["degenerate dropped"] += state.degenerate
        counts["states with a right sample"] += any(r >= 1 for r in state.rewards)
        counts["states without any response"] += state.improved is None
        counts["states"] += 1


def row_counts(run: Run, recipe: RiseRecipe) -> dict[str, Any]:
    """Training rows of each iteration that has collected, by turn, source and reward."""
    paths = {str(i): run.folder / f"data/iteration-{i}.counts.json" for i in range(1, recipe.iterations + 1)}
    return {iteration: read_json(path) for iteration, path in paths.items() if path.is_file()}


def costs(run: Run, recipe: RiseRecipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seconds and tokens per phase; work that was lost when a process was killed is not counted."""
    seconds = seconds_by_phase(run)
    tokens: dict[str, Any] = {}
    for phase in sampled_phases(recipe):
        for field, name in (("usage", phase), ("teacher_usage", f"{phase}-teacher")):
            total: Counter[str] = Counter()
            for line in run.journal(phase):
                total.update(line.get(field, {}))
            if total:
                tokens[name] = {key: total[key] for key in _COUNTED}
    for name in ["warm", *map(str, range(1, recipe.iterations + 1))]:
        if (stored := read_result(run.folder / "models" / name)) is not None:
            seconds[f"train-{name}"] = stored[0].seconds
            tokens[f"train-{name}"] = {
                "tokens": stored[0].tokens,
                "label_tokens": stored[0].label_tokens,
                "dropped_rows": stored[0].dropped_rows,
            }
    return {phase: round(value, 1) for phase, value in seconds.items()}, tokens


_COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "retries", "errors")


def sampled_phases(recipe: RiseRecipe) -> Iterator[str]:
    """Names of the journals of the phases that sample."""
    for stage in range(recipe.iterations + 1):
        yield f"evaluate-{stage}"
    for iteration in range(1, recipe.iterations + 1):
        yield f"collect-{iteration}"
