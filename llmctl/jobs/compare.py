"""Compare two jobs on the problems that they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.results import RESULTS
from llmctl.jobs.show import read_job, read_summary
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.summary import add_holm, compare_groups, read_job_groups, seed_groups
from llmctl.runs.recipe import differences, recipe_content

# The sections that must agree, or a comparison would mean nothing.
_SAME = ("tasks", "protocols", "sampling", "seeds", "limit")


def compare_jobs(first: Path, second: Path) -> dict[str, Any]:
    """The second job minus the first, for every model, task and protocol that both have.

    Models are matched by name, or as they are where each job has a single model.

    Returns:
        `comparisons`, as in a summary, and `differences` between the two recipes, one line each.

    Rankings may be of different runs or arms, as long as these have the same candidate lists.

    Raises:
        UserError: A folder is no finished job, the two ask differently or about different problems, or they
            share no model.
    """
    old, new = read_job(first), read_job(second)
    _check_same(first, second, old, new)
    failed = [set(read_summary(folder)["failed"]) for folder in (first, second)]
    pairs = _pairs(
        [name for name in old.models if name not in failed[0]],
        [name for name in new.models if name not in failed[1]],
        f"{first} and {second}",
    )
    _check_comparable((first, second), old)
    a, b = read_job_groups(first / RESULTS, old), read_job_groups(second / RESULTS, new)
    entries = []
    for task, protocol in old.pairs():
        spec = old.protocols[protocol]
        primary = spec.definition.primary(spec)
        for was, now in pairs:
            found = compare_groups(
                seed_groups(a, old, (was, task, protocol)),
                seed_groups(b, new, (now, task, protocol)),
                primary.values,
            )
            about = {"task": task, "protocol": protocol, "figure": primary.name, "first": was, "second": now}
            entries.append(about | found.to_dict())
    add_holm(entries)
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
    """A recipe without the settings that may differ, because `_check_comparable` looks deeper."""
    content = recipe_content(recipe)
    for name, spec in recipe.protocols.items():
        free = spec.definition.unmatched_fields
        plain: dict[str, Any] = content["protocols"][name]
        content["protocols"][name] = {key: value for key, value in plain.items() if key not in free}
    return content


def _check_comparable(jobs: tuple[Path, Path], recipe: JobRecipe) -> None:
    """Let each protocol check one entry of each summary."""
    found = [{entry["protocol"]: entry for entry in read_summary(job)["figures"]} for job in jobs]
    for name, first in found[0].items():
        if name in found[1]:
            recipe.protocols[name].definition.check_comparable(name, jobs, first, found[1][name])


def _pairs(old: Sequence[str], new: Sequence[str], jobs: str) -> list[tuple[str, str]]:
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    if shared := [(name, name) for name in old if name in new]:
        return shared
    raise UserError(
        f"{jobs} share no model: the first has {', '.join(old)}, the second {', '.join(new)}; "
        "give the same names"
    )
