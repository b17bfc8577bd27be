"""Compare the last evaluations of two RISE runs on the problems they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.rise.estimate import FINISHED
from llmctl.rise.metric_names import ONE_SAMPLE, MetricNames
from llmctl.rise.metrics import paired_gains
from llmctl.rise.records import Evaluation
from llmctl.runs import Estimate, read_journal
from llmctl.runs.recipe import differences, read_recipe_file

_SAME = ("task", "evaluate", "sampling")  # what must agree for a comparison to mean something


def compare_runs(first: Path, second: Path, seed: int = 0) -> dict[str, Any]:
    """Second minus first, metric by metric, by paired bootstrap.

    Returns:
        `stages` (the iteration of each run that is compared), `n`, `figures` (the metrics, each an
        `Estimate`), and `differences` of the two recipes, in words.

    Raises:
        UserError: A folder is not a RISE run or has no evaluation, or the two were evaluated differently.
    """
    old, new = _recipe(first), _recipe(second)
    for section in _SAME:
        if changed := differences(_section(old, section), _section(new, section)):
            raise UserError(
                f"{first} and {second} were evaluated differently ({section}: {', '.join(changed)}): "
                "compare runs with the same task, sampling and evaluation"
            )
    names = _names(old)
    a, records_a = _last(first)
    b, records_b = _last(second)
    try:
        gains = paired_gains(records_a, records_b, seed, names.turns)
    except ValueError as error:
        raise UserError(f"{first} and {second} cannot be compared: {error}") from error
    shown = (ONE_SAMPLE, names.parallel_vote, names.turn_vote, names.any_turn, "compute_matched_gain")
    figures: dict[str, Estimate] = {name: gains[name] for name in shown}
    return {"stages": [a, b], "n": len(records_a), "figures": figures, "differences": differences(old, new)}


def _names(recipe: Mapping[str, Any]) -> MetricNames:
    evaluate, default = recipe.get("evaluate") or {}, MetricNames()
    return MetricNames(evaluate.get("parallel") or default.parallel, evaluate.get("turns") or default.turns)


def _recipe(folder: Path) -> dict[str, Any]:
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run: give the folder of a finished `llmctl rise run`")
    content = read_recipe_file(path, is_link_allowed=False)
    if content.get("kind") != "rise":
        raise UserError(f"{folder} is a run of kind {content.get('kind')!r}, but two RISE runs are needed")
    return content


def _section(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    evaluate = recipe.get("evaluate") or {}
    if name == "sampling":  # of the evaluation: its own, or that of the collection
        return evaluate.get("sampling") or recipe.get("sampling") or {}
    if name == "evaluate":
        return {key: evaluate.get(key) for key in ("problems", "turns", "parallel", "seed")}
    return recipe.get(name) or {}


def _last(folder: Path) -> tuple[int, list[Evaluation]]:
    """The last iteration that was evaluated completely, and its records."""
    stages = sorted(
        (int(path.stem.removeprefix("evaluate-")), path) for path in folder.glob("journal/evaluate-*.jsonl")
    )
    whole = {line["key"] for line in read_journal(folder / "journal" / f"{FINISHED}.jsonl")}
    for stage, path in reversed(stages):
        if path.stem in whole:
            lines = read_journal(path)
            return stage, [Evaluation.from_dict(plain) for line in lines for plain in line["records"]]
    raise UserError(f"{folder} has no evaluation yet: finish it with `llmctl rise run`")
