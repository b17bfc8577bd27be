"""Merge the shards of one curve: nothing missing, nothing twice, nothing from another curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.reach.curves.recheck_run import RECHECKS
from llmctl.reach.curves.recipe import CurveRecipe, ShardSettings, read_curve_recipe
from llmctl.reach.curves.run import BASELINE, PAIRS, PLAN, finish_curve, without_key
from llmctl.runs import Run, read_journal
from llmctl.runs.files import read_json
from llmctl.runs.recipe import differences, recipe_content
from llmctl.runs.timing import TIMING

Journals = Mapping[str, list[dict[str, Any]]]


def merge_runs(folders: Sequence[Path]) -> tuple[CurveRecipe, Journals]:
    """Check shards against each other, and read them.

    Returns:
        The recipe of the whole curve, and the records of its journals.

    Raises:
        UserError: A shard is missing, there twice, unfinished, or of another curve or other weights.
    """
    recipes = [read_curve_recipe(folder) for folder in folders]
    first = recipes[0]
    whole = first.model_copy(update={"shard": ShardSettings()})
    for folder, recipe in zip(folders, recipes, strict=True):
        same = recipe.model_copy(update={"shard": ShardSettings()})
        if changed := differences(recipe_content(whole), recipe_content(same), CurveRecipe.free_keys):
            raise UserError(f"{folder} is of another curve than {folders[0]}: {', '.join(changed)}")
        if recipe.shard.of != first.shard.of:
            raise UserError(
                f"{folder} is one of {recipe.shard.of} shards, but {folders[0]} is one of {first.shard.of}"
            )
    _check_complete([recipe.shard.index for recipe in recipes], first.shard.of, folders)
    _check_weights(folders)
    journals: dict[str, list[dict[str, Any]]] = {name: [] for name in (PAIRS, BASELINE, TIMING, RECHECKS)}
    for folder in folders:
        _read_shard(folder, first.baseline == "random", journals)
    if first.states.pairs is None and first.states.count:
        states = {line["key"].partition("/")[0] for line in journals[PAIRS]}
        if len(states) != first.states.count:
            raise UserError(
                f"the shards hold {len(states)} states, but the recipe asks for {first.states.count}: "
                "a shard was made from another file"
            )
    return whole, journals


def finish_merge(run: Run, recipe: CurveRecipe, journals: Journals) -> dict[str, Any]:
    """Write the merged journals that are not there yet, then metrics and report."""
    for name, lines in journals.items():
        book = run.journal(name)
        for line in lines:
            if line["key"] not in book:
                book.append(line["key"], without_key(line))
    return finish_curve(run, recipe)


def _check_complete(indices: Sequence[int], of: int, folders: Sequence[Path]) -> None:
    for place, index in enumerate(indices):
        if index in indices[:place]:
            other = folders[indices.index(index)]
            raise UserError(f"shard {index} is there twice, in {other} and {folders[place]}: give each once")
    if missing := sorted(set(range(of)) - set(indices)):
        names = ", ".join(map(str, missing))
        raise UserError(f"shard {names} of {of} is missing: merge all shards of a curve")


def _check_weights(folders: Sequence[Path]) -> None:
    prints = {}
    for folder in folders:
        noted = read_json(folder / "manifest.json")["notes"]
        prints[folder] = (noted.get("model_fingerprint"), noted.get("adapter_fingerprint"))
    for folder, found in prints.items():
        if found != prints[folders[0]]:
            raise UserError(f"{folder} was made with other weights than {folders[0]}: run it again")


def _read_shard(folder: Path, has_baseline: bool, journals: dict[str, list[dict[str, Any]]]) -> None:
    planned = set(read_json(folder / PLAN)) if (folder / PLAN).is_file() else set()
    for name in (PAIRS, BASELINE) if has_baseline else (PAIRS,):
        lines = list(read_journal(folder / "journal" / f"{name}.jsonl"))
        keys = {line["key"] for line in lines}
        if missing := sorted(planned - keys):
            raise UserError(
                f"{folder} lacks {len(missing)} of {len(planned)} pairs (first: {missing[0]}): finish it "
                "with `llmctl reach curve`"
            )
        taken = {line["key"] for line in journals[name]}
        if doubled := sorted(taken & keys):
            raise UserError(
                f"{folder} holds {len(doubled)} pairs that another shard has (first: {doubled[0]})"
            )
        if extra := sorted(keys - planned) or not planned:
            raise UserError(f"{folder} holds pairs that its plan does not ({extra}): run it again")
        journals[name] += lines
    if (marks := folder / "journal" / f"{RECHECKS}.jsonl").is_file():
        journals[RECHECKS] += read_journal(marks)
    journals[TIMING] += read_journal(folder / "journal" / f"{TIMING}.jsonl")
