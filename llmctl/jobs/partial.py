"""The results of a job as far as it got: those of a finished one, or the shards that are finished so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.attempts import SHARDS, ShardLine, latest_lines
from llmctl.jobs.results import RESULTS, merge_parts
from llmctl.jobs.show import SUMMARY, read_job, read_summary
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.summary import model_costs, summarize_results
from llmctl.runs import read_journal


@dataclass(frozen=True)
class JobOutput:
    """What can be shown and exported of a job."""

    recipe: JobRecipe
    summary: dict[str, Any]
    """As in `summary.json`. That of an unfinished job has `unfinished`, the number of its finished shards."""
    path: Path
    """The rows, in the order of the plan."""


@contextmanager
def job_output(folder: Path) -> Iterator[JobOutput]:
    """Open the results of a job, which may still be running; files of an unfinished one are temporary.

    Raises:
        UserError: The folder is no job, or no shard of it is finished.
    """
    recipe = read_job(folder)
    if (folder / SUMMARY).is_file() and (folder / RESULTS).is_file():
        yield JobOutput(recipe, read_summary(folder), folder / RESULTS)
        return
    journal = list(read_journal(folder / "journal" / f"{SHARDS}.jsonl"))
    lines = [line for line in latest_lines(journal).values() if line.part(folder).path.is_file()]
    if not lines:
        raise UserError(f"{folder} has no finished shard yet: `llmctl eval run` starts or continues it")
    lines.sort(key=lambda line: _place(recipe, line))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / RESULTS
        merge_parts([line.shard for line in lines], [line.part(folder) for line in lines], path)
        costs = model_costs(journal, recipe.prices)
        summary = summarize_results(path, recipe, costs, is_finished=False)
        yield JobOutput(recipe, {**summary, "unfinished": len(lines)}, path)


def _place(recipe: JobRecipe, line: ShardLine) -> tuple[int, int, int, int]:
    """Where a shard is in the order of the plan."""
    shard = line.shard
    return (
        list(recipe.models).index(shard.model),
        recipe.pairs().index((shard.task, shard.protocol)),
        recipe.seeds.index(shard.seed),
        shard.start,
    )
