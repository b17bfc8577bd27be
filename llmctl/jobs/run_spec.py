"""The run of `llmctl eval run`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmctl.jobs.records import ProblemCount
from llmctl.jobs.run import Engine, JobResult, check_job, estimate_job, run_job
from llmctl.jobs.show import all_tables
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Run, Table
from llmctl.runs.spec import RunSpec


def show_job(run: Run, recipe: JobRecipe, result: JobResult) -> Iterator[Table | str]:
    """The metrics with intervals, and where all samples are; nothing where the job is not finished."""
    if result.summary is not None:
        yield from all_tables(result.summary)
        yield f"results: {run.folder / 'results.parquet'} ({result.rows:,} rows)"


def job_spec(
    folder: Path, engine: Engine, max_tokens: int | None = None, max_cost: float | None = None
) -> RunSpec[JobRecipe, dict[str, ProblemCount], JobResult]:
    """A job with the options that no result depends on.

    Args:
        folder: Folder of the run, whose measured rates enter the estimate.
        engine: Where the job runs.
        max_tokens: New tokens at most, earlier starts included; None is no limit.
        max_cost: The same for the cost at the recipe's prices.
    """

    def execute(run: Run, recipe: JobRecipe, counts: dict[str, ProblemCount], quiet: bool) -> JobResult:
        return run_job(
            run, recipe, engine, counts=counts, quiet=quiet, max_tokens=max_tokens, max_cost=max_cost
        )

    return RunSpec(
        recipe=JobRecipe,
        preflight=check_job,
        estimate=lambda recipe: estimate_job(recipe, folder),
        execute=execute,
        show=show_job,
    )
