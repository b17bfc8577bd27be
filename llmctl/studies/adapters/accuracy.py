"""Accuracy of a unit on the validation problems of its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.studies.adapters.unit_job import UnitJob
from llmctl.studies.adapters.unit_result import TaskAccuracy


def measure_accuracy(job: UnitJob, model: str, adapter: Path | None) -> TaskAccuracy:
    """Check greedy replies to the first validation problems.

    Args:
        job: The unit.
        model: Alias or folder of the model.
        adapter: Folder of its adapter, if there is one.
    """
    from llmctl.sampling import Settings, open_sampler
    from llmctl.tasks import get_task
    from llmctl.training.data.sources import get_rows

    task = job.data.task
    if task is None:
        raise ValueError("accuracy without a task: the recipe refuses this")
    path = task.validation_path or task.path
    checker = get_task(task.name, **({} if path is None else {"path": path}), **task.options)
    problems = get_rows(job.data).problems[: job.accuracy.problems]
    # vLLM cannot run Sparse-GIN, and all arms must decode alike.
    sampler = open_sampler(model, engine="transformers", adapter=adapter)
    try:
        settings = Settings(n=1, temperature=0.0, max_tokens=job.accuracy.max_tokens, seed=0)
        replies = sampler.chat([checker.conversation(problem) for problem in problems], settings)
    finally:
        sampler.close()
    pairs = zip(problems, replies, strict=True)
    right = tuple(_is_right(checker, problem, reply) for problem, (reply,) in pairs)
    return TaskAccuracy(right, sum(right) / len(right))


def _is_right(task: Any, problem: Any, reply: Any) -> bool:
    return not reply.is_error and bool(task.check(problem, reply.text).is_correct)
