"""A reachable set as a command: with a folder it resumes inside the scan and writes plots and a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmctl.models.description import fingerprints
from llmctl.models.loading import load
from llmctl.reach.curves.plan import problem_template
from llmctl.reach.curves.plots import draw_reached
from llmctl.reach.describe import set_sentence, set_table
from llmctl.reach.parse_inputs import read_state
from llmctl.reach.problem import Problem
from llmctl.reach.reachable_sets.explore import Exploration, Growth, ReachableSet, explore
from llmctl.reach.reachable_sets.recipe import SetRecipe
from llmctl.reach.scoring.scan import ScanChunk
from llmctl.reach.scoring.scorer import check_model, vocabulary_of
from llmctl.reach.vocabulary import decode
from llmctl.runs import Run, Section, progress, save_figure, write_report
from llmctl.runs.files import read_json

METRICS = "metrics.json"


def find_set(
    recipe: SetRecipe, folder: Path | None, *, fresh: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """The reachable set of a recipe's state.

    Args:
        recipe: Resolved.
        folder: A run's folder to keep it in, and to go on in; None keeps nothing.
        fresh: Start the folder over.
        quiet: Show no progress.

    Returns:
        `ReachableSet.to_dict` with `state_text` and every witness as text.

    Raises:
        UserError: The state does not fit the model, or nothing is left for a control.
    """
    if folder is None:
        return _find(recipe, None, quiet)
    check_state(recipe)  # a mistake in the state must not leave a folder behind
    with Run.open(folder, recipe, "reach set", fresh) as run:
        return run_set(run, recipe, quiet=quiet)


def check_state(recipe: SetRecipe) -> None:
    """Find mistakes in the state before a folder is made.

    Raises:
        UserError: The state is not what its position needs.
    """
    _state(recipe)


def run_set(run: Run, recipe: SetRecipe, *, quiet: bool = False) -> dict[str, Any]:
    """Do what is missing of a reachable set; metrics and report are in the run's folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        quiet: Show no progress.

    Returns:
        As `find_set`; also in `metrics.json`.
    """
    path = run.folder / METRICS
    if METRICS in run.manifest["made"] and path.is_file():
        stored: dict[str, Any] = read_json(path)
        return stored
    run.pin(**fingerprints(recipe.model, recipe.adapter))
    found = _find(recipe, run, quiet)
    figure = save_figure(
        draw_reached(found), run, "reached", "Reached tokens by base rank and k, and how the set grew."
    )
    sections = [Section("Reached", [set_sentence(found), figure, set_table(found, 60)])]
    write_report(run, f"Reachable set of {found['state_text']!r:.60}", sections)
    run.write_metrics(found)
    return found


def _state(recipe: SetRecipe) -> Any:
    ids = " ".join(map(str, recipe.state_ids or ()))
    return read_state(recipe.state, ids, recipe.controls.position)


def _find(recipe: SetRecipe, run: Run | None, quiet: bool) -> dict[str, Any]:
    loaded = load(recipe.model, adapter=recipe.adapter, **recipe.load.options())
    check_model(loaded.model)
    template = problem_template(recipe.controls, recipe.seed, loaded.tokenizer, vocabulary_of(loaded.model))
    problem: Problem = replace(template, state=_state(recipe))
    settings = Exploration(
        forwards=recipe.exploration.forwards, strategy=recipe.exploration.strategy, seed=recipe.seed
    )
    book = None if run is None else run.journal("scan")
    done = [ScanChunk.from_dict(line) for line in book or ()]

    def keep(chunk: ScanChunk) -> None:
        if book is not None:
            book.append(str(chunk.start), chunk.to_dict())

    steps = explore(loaded.model, loaded.tokenizer, problem, recipe.k, settings, done=done, keep=keep)
    with progress(None, "set", "controls", quiet=quiet) as bar:
        for step in steps:
            if isinstance(step, Growth):
                bar.advance(step.forwards - bar.done, note=f"{step.reached} tokens reached")
            else:
                return _entry(step, loaded.tokenizer)
    raise RuntimeError("the exploration ended without a set")


def _entry(found: ReachableSet, tokenizer: Any) -> dict[str, Any]:
    entry = found.to_dict()
    for reached in entry["reached"]:
        reached["control_text"] = decode(reached["control_ids"], tokenizer)
    return entry | {"state_text": decode(found.state_ids, tokenizer)}
