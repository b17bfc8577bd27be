"""The episodes of a RISE run, from its journals, and the flows between turns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.files.library import Library, reading
from llmctl.rise.metrics import flows
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs.recipe import parse_recipe
from llmctl.tasks import get_task
from llmctl.tasks.base import INCORRECT

_STAGE = re.compile(r"evaluate-([0-9]{1,6})")
_MOST_STAGES = 200
_MOST_PROBLEMS = 5_000  # problems that are made again to show the prompt of one
_LARGEST = 1_000  # of a task's options: a size beyond that can take hours


def stages(library: Library, run: str) -> list[int]:
    """The iterations after which a run was evaluated; 0 is before any training.

    Raises:
        UserError: There are none.
    """
    found = sorted(int(m[1]) for name in library.journals(run) if (m := _STAGE.fullmatch(name)))
    if not found:
        raise UserError(f"{run} has no evaluation: choose a run of kind rise that has one")
    if len(found) > _MOST_STAGES:
        raise UserError(f"{run} has {len(found)} evaluations, but {_MOST_STAGES} can be shown at most")
    return found


def overview(library: Library, run: str) -> dict[str, Any]:
    """Every stage with its flows and, for each problem, which turns were right.

    Raises:
        UserError: The run has no evaluation, or its journals lead out of the runs folder.
    """
    recipe = library.recipe(run)
    table = []
    for stage in stages(library, run):
        evaluations = library.episodes(run, stage).evaluations
        table.append(
            {
                "stage": stage,
                "problems": len(evaluations),
                "flows": [_plain(turn) for turn in flows(evaluations)] if evaluations else [],
                "episodes": [
                    {"problem": entry.problem, "right": [turn.is_correct for turn in entry.turns]}
                    for entry in evaluations
                ],
            }
        )
    return {
        "run": run,
        "model": library.offer_name(recipe.get("model")),
        "task": _task_name(recipe),
        "stages": table,
    }


def episode(library: Library, run: str, stage: int, problem: str) -> dict[str, Any]:
    """One episode: the problem as it was posed, where it can be told, every turn, and what was said between.

    Raises:
        UserError: There is no such episode.
    """
    with reading(run):
        record = library.episodes(run, stage).episode(problem)
    if record is None:
        raise UserError(f"{run} has no problem {problem[:100]!r} at stage {stage}: choose one of the list")
    recipe = _recipe(library, run)
    retry = None if recipe is None else recipe.evaluation_sampling.retry
    posed = {} if recipe is None else _posed(library, recipe, problem)
    return {**record, "prompt": None, "system": "", **posed, "retry": retry or INCORRECT}


def _recipe(library: Library, run: str) -> RiseRecipe | None:
    """The recipe of a run; None where it is of another version of llmctl."""
    content = {key: value for key, value in library.recipe(run).items() if key != "kind"}
    try:
        return parse_recipe(RiseRecipe, content, "the run's recipe")
    except UserError:
        return None


def _plain(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**turn, "accuracy": turn["accuracy"].to_dict()}


def _task_name(recipe: Mapping[str, Any]) -> str:
    task = recipe.get("task") or {}
    return str(task.get("name", "sort"))[:200] if isinstance(task, Mapping) else ""


def _posed(library: Library, recipe: RiseRecipe, problem: str) -> dict[str, str]:
    """`prompt` and `system` of a problem, where its task makes it or keeps it in the runs folder.

    A task of the user's own is code, and a file may lie anywhere: neither is opened because a recipe
    names it. Nor are problems made that would keep the server busy.
    """
    task, evaluate = recipe.task, recipe.evaluate
    if evaluate.problems > _MOST_PROBLEMS or not _is_small(task.options):
        return {}
    path = task.test_path or task.path
    if "path" in task.options or (":" in task.name and not task.name.startswith("gym:")):
        return {}
    if path is not None and not path.resolve().is_relative_to(library.root):
        return {}
    try:
        made = get_task(task.name, **({} if path is None else {"path": path}), **task.options)
        found = made.problems(task.test_split, evaluate.problems, evaluate.seed)
        prompt = next((entry.prompt for entry in found if entry.id == problem), None)
        return {} if prompt is None else {"prompt": prompt, "system": str(getattr(made, "system", ""))}
    except UserError:
        return {}


def _is_small(value: Any) -> bool:
    """Whether no number of a task's options asks for a huge problem."""
    if isinstance(value, Mapping):
        return all(map(_is_small, value.values()))
    if isinstance(value, list | tuple):
        return len(value) <= _LARGEST and all(map(_is_small, value))
    return not isinstance(value, int | float) or abs(value) <= _LARGEST
