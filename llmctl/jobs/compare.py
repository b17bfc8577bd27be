"""Compare two jobs on the problems that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.metrics import holm, primary_figure
from llmctl.jobs.result_groups import Cell, Key, read_cells
from llmctl.jobs.results import RESULTS
from llmctl.jobs.show import read_job, read_summary
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.summary import compare_cells
from llmctl.runs.recipe import differences, recipe_content

# What must agree for a comparison to mean something.
_SAME = ("tasks", "protocols", "sampling", "seeds", "limit")


def compare_jobs(first: Path, second: Path) -> dict[str, Any]:
    """Second minus first for every model, task and protocol that both have.

    Models are matched by name; where both jobs have a single model, these two are.

    Returns:
        `comparisons`, as in a summary, and `differences` of the two recipes in words.

    Rankings may be of different runs or arms, as long as these have the same candidate lists.

    Raises:
        UserError: A folder is no finished job, the two ask differently, rank different lists, or share no
            model.
    """
    old, new = read_job(first), read_job(second)
    _check_same(first, second, old, new)
    failed = [set(read_summary(folder)["failed"]) for folder in (first, second)]
    pairs = _pairs(
        [name for name in old.models if name not in failed[0]],
        [name for name in new.models if name not in failed[1]],
        f"{first} and {second}",
    )
    _check_lists(first, second, list(old.rankings))
    a, b = read_cells(first / RESULTS, old.rankings), read_cells(second / RESULTS, new.rankings)
    entries = []
    for task, protocol in old.asked():
        spec = old.protocols[protocol]
        figure, values = primary_figure(spec.protocol, spec.n)
        for was, now in pairs:
            found = compare_cells(
                _cells(a, old, (was, task, protocol)), _cells(b, new, (now, task, protocol)), values
            )
            about = {"task": task, "protocol": protocol, "figure": figure, "first": was, "second": now}
            entries.append(about | found)
    for entry, adjusted in zip(entries, holm([e["p_value"] for e in entries]), strict=True):
        entry["p_holm"] = adjusted
    changed = differences(recipe_content(old), recipe_content(new), JobRecipe.free_keys)
    return {"first": str(first), "second": str(second), "comparisons": entries, "differences": changed}


def _check_same(first: Path, second: Path, old: JobRecipe, new: JobRecipe) -> None:
    before, after = (_asked(job) for job in (old, new))
    for section in _SAME:
        if changed := differences({section: before[section]}, {section: after[section]}):
            raise UserError(
                f"{first} and {second} ask differently ({', '.join(changed)}): compare jobs with the same "
                "tasks, protocols, sampling, seeds and limit"
            )


def _asked(recipe: JobRecipe) -> dict[str, Any]:
    """What a job asks, less whose lists its rankings take: `_check_lists` sees whether they are the same."""
    content = recipe_content(recipe)
    for name in recipe.rankings:
        spec: dict[str, Any] = content["protocols"][name]
        content["protocols"][name] = {k: v for k, v in spec.items() if k not in ("run", "arm", "shards")}
    return content


def _check_lists(first: Path, second: Path, rankings: Sequence[str]) -> None:
    hashes = [
        {
            entry["protocol"]: entry["candidate_hash"]
            for entry in read_summary(folder)["figures"]
            if entry["protocol"] in rankings
        }
        for folder in (first, second)
    ]
    for name, found in hashes[0].items():
        if found != hashes[1].get(name):
            raise UserError(
                f"{first} and {second} rank different candidates under {name} (hash {found} and "
                f"{hashes[1].get(name)}): compare jobs on runs with the same data and lists (candidates.path)"
            )


def _pairs(old: Sequence[str], new: Sequence[str], jobs: str) -> list[tuple[str, str]]:
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    if shared := [(name, name) for name in old if name in new]:
        return shared
    raise UserError(
        f"{jobs} share no model: the first has {', '.join(old)}, the second {', '.join(new)}; "
        "give the same names"
    )


def _cells(cells: Mapping[Key, Cell], recipe: JobRecipe, group: tuple[str, str, str]) -> list[Cell]:
    return [cells[(*group, seed)] for seed in recipe.protocol_seeds(group[2])]
