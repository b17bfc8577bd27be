"""The work plan of a job: shards that are the same whoever computes them, each with a content key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.spec import RANKING_TASK, JobRecipe, ProtocolSpec
from llmctl.reach.curves.recipe import CurveSettings
from llmctl.runs.files import disk_errors_as_user_errors, to_json
from llmctl.tasks import Problem, Task, get_task


@dataclass(frozen=True)
class Shard:
    """Problems [start, stop) of a task for one model under one protocol and seed: one batch of work.

    Of a reach_curve, which has no problems, start is the number of the part. The problems of an msr_ranking
    are users.
    """

    model: str
    task: str
    protocol: str
    seed: int
    start: int
    stop: int
    key: str = ""  # a hash of everything that its results depend on

    @property
    def cell(self) -> tuple[str, str, str, int]:
        """Model, task, protocol and seed."""
        return self.model, self.task, self.protocol, self.seed

    def __str__(self) -> str:
        return f"{self.model}/{self.task}/{self.protocol}/seed {self.seed}/{self.start}-{self.stop}"


def open_tasks(recipe: JobRecipe) -> dict[str, Task]:
    """The tasks of a job by their names in it.

    Raises:
        UserError: No such task or option, or nothing at its path.
    """
    return {name: get_task(spec.name, path=spec.path, **spec.options) for name, spec in recipe.tasks.items()}


def task_problems(recipe: JobRecipe, name: str, task: Task) -> Iterator[Problem]:
    """The problems of a task that a job asks, in order."""
    spec = recipe.tasks[name]
    return task.problems(spec.split, recipe.problem_limit(name), spec.seed)


def count_problems(recipe: JobRecipe, tasks: Mapping[str, Task]) -> dict[str, tuple[int, str]]:
    """How many problems each task has for the job, and a hash of them.

    Raises:
        UserError: A task has none, or one of its ids comes twice.
    """
    found = {}
    for name, task in tasks.items():
        digest, seen = hashlib.sha256(), set()
        for problem in task_problems(recipe, name, task):
            if problem.id in seen:
                raise UserError(f"task {name} has two problems of the id {problem.id!r}: give each its own")
            seen.add(problem.id)
            digest.update(ascii((problem.id, problem.prompt, problem.answer)).encode())
        if not seen:
            raise UserError(
                f"task {name} gave no {recipe.tasks[name].split} problems: check its path and split"
            )
        found[name] = (len(seen), digest.hexdigest()[:16])
    return found


def plan_shards(
    recipe: JobRecipe, counts: Mapping[str, tuple[int, str]], fingerprints: Mapping[str, Any]
) -> list[Shard]:
    """All shards of a job, in the order of its results.

    Args:
        recipe: Resolved.
        counts: As `count_problems` and `ranking.count_users` give them.
        fingerprints: What identifies the weights of each model; part of its shards' keys.

    Returns:
        Shards by model, task, protocol, seed and problem, in the order of the recipe.
    """
    shards = []
    for model in recipe.models:
        for task, protocol in recipe.asked():
            spec = recipe.protocols[protocol]
            if spec.is_curve:
                count, digest = spec.shards, _states(spec)
            else:
                count, digest = counts[ranked_name(protocol) if spec.is_ranking else task]
            for seed in recipe.protocol_seeds(protocol):
                for start, stop in _bounds(count, spec, recipe.shard_size):
                    shard = Shard(model, task, protocol, seed, start, stop)
                    shards.append(_with_key(recipe, shard, digest, fingerprints.get(model)))
    return shards


def ranked_name(protocol: str) -> str:
    """The name that the users of a ranking are counted by: each protocol may have a run of its own."""
    return f"{RANKING_TASK} of {protocol}"


def _bounds(count: int, spec: ProtocolSpec, shard_size: int) -> list[tuple[int, int]]:
    """Where shards start and stop."""
    if spec.is_ranking:
        parts = min(spec.shards, count)
        return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
    size = 1 if spec.is_curve else shard_size
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def most_tokens(recipe: JobRecipe, shard: Shard) -> int:
    """New tokens that a shard samples at most."""
    if recipe.protocols[shard.protocol].own_task:
        return 0  # a search and a ranking read tokens and sample none
    return count_samples(recipe, shard) * recipe.sampling.max_tokens


def count_samples(recipe: JobRecipe, shard: Shard) -> int:
    """Samples that a shard means."""
    return (shard.stop - shard.start) * recipe.protocols[shard.protocol].samples


def _states(spec: ProtocolSpec) -> str:
    """A hash of the file that a curve's states come from, if any; its settings are in the key as they are.

    Raises:
        UserError: It can not be read.
    """
    states = (spec.curve or CurveSettings()).states
    path = states.path or states.pairs
    if path is None:
        return ""
    with disk_errors_as_user_errors(f"read {path}"):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _with_key(recipe: JobRecipe, shard: Shard, problems: str, weights: Any) -> Shard:
    content = {
        "shard": {name: value for name, value in asdict(shard).items() if name != "key"},
        "model": recipe.models[shard.model].model_dump(mode="json"),
        "weights": weights,
        "problems": problems,
        "protocol": recipe.protocols[shard.protocol].model_dump(mode="json"),
        "sampling": recipe.sampling.model_dump(mode="json"),
        "threads": recipe.threads,
    }
    key = hashlib.sha256(to_json(content).encode()).hexdigest()[:20]
    return Shard(*shard.cell, shard.start, shard.stop, key)
