"""The work plan of a job: shards that do not depend on where they are computed, each with a content key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.records import ProblemCount, Shard
from llmctl.jobs.spec import JobRecipe
from llmctl.runs.files import to_json
from llmctl.tasks import Problem, Task


def open_tasks(recipe: JobRecipe) -> dict[str, Task]:
    """The tasks of a job by name.

    Raises:
        UserError: There is no such task or option, or nothing at its path.
    """
    return {name: spec.open() for name, spec in recipe.tasks.items()}


def task_problems(recipe: JobRecipe, name: str, task: Task) -> Iterator[Problem]:
    """The problems of a task that a job asks, in order."""
    spec = recipe.tasks[name]
    return task.problems(spec.split, recipe.problem_limit(name), spec.seed)


def count_problems(recipe: JobRecipe) -> dict[str, ProblemCount]:
    """How many problems a job has: of each task, and of each protocol with a task of its own.

    Raises:
        UserError: A task or what a protocol reads is missing or wrong, a task has no problems, or one of
            its ids appears twice.
    """
    found = {name: _count_task(recipe, name, task) for name, task in open_tasks(recipe).items()}
    for name, spec in recipe.protocols.items():
        own = spec.definition.count(recipe, name)
        if own is not None:
            found[own_count_name(recipe, name)] = own
    return found


def own_count_name(recipe: JobRecipe, protocol: str) -> str:
    """The name under which a protocol's own problems are counted and pinned."""
    return f"{recipe.protocols[protocol].definition.task_name} of {protocol}"


def plan_shards(
    recipe: JobRecipe, counts: Mapping[str, ProblemCount], fingerprints: Mapping[str, Any]
) -> list[Shard]:
    """All shards of a job, in the order of its results.

    Args:
        recipe: The resolved recipe.
        counts: The result of `count_problems`.
        fingerprints: What identifies the weights of each model; part of the keys of its shards.

    Returns:
        Shards by model, task, protocol, seed and problem, in the order of the recipe.
    """
    shards = []
    for model in recipe.models:
        for task, protocol in recipe.pairs():
            definition = recipe.protocols[protocol].definition
            counted = task if definition.task_name is None else own_count_name(recipe, protocol)
            cuts = definition.shards(recipe, protocol, counts.get(counted))
            for seed in recipe.protocol_seeds(protocol):
                for start, stop in cuts.bounds:
                    shard = Shard(model, task, protocol, seed, start, stop)
                    shards.append(_with_key(recipe, shard, cuts.digest, fingerprints.get(model)))
    return shards


def most_tokens(recipe: JobRecipe, shard: Shard) -> int:
    """Maximum number of new tokens that a shard samples."""
    if not recipe.protocols[shard.protocol].definition.samples_text:
        return 0
    return count_samples(recipe, shard) * recipe.sampling.max_tokens


def count_samples(recipe: JobRecipe, shard: Shard) -> int:
    """Number of samples of a shard."""
    return (shard.stop - shard.start) * recipe.protocols[shard.protocol].samples


def _count_task(recipe: JobRecipe, name: str, task: Task) -> ProblemCount:
    digest, seen = hashlib.sha256(), set()
    for problem in task_problems(recipe, name, task):
        if problem.id in seen:
            raise UserError(f"task {name} has two problems of the id {problem.id!r}: give each its own")
        seen.add(problem.id)
        digest.update(ascii((problem.id, problem.prompt, problem.answer)).encode())
    if not seen:
        raise UserError(f"task {name} gave no {recipe.tasks[name].split} problems: check its path and split")
    return ProblemCount(len(seen), digest.hexdigest()[:16])


def _with_key(recipe: JobRecipe, shard: Shard, problems: str, weights: Any) -> Shard:
    content = {
        "shard": shard.place,
        "model": recipe.models[shard.model].model_dump(mode="json"),
        "weights": weights,
        "problems": problems,
        "protocol": recipe.protocols[shard.protocol].model_dump(mode="json"),
        "sampling": recipe.sampling.model_dump(mode="json"),
        "threads": recipe.threads,
    }
    key = hashlib.sha256(to_json(content).encode()).hexdigest()[:20]
    return Shard(*shard.group, shard.start, shard.stop, key)
