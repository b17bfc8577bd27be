"""`llmctl eval`: batch evaluation of models on tasks under protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmctl.cli.options import (
    AllowCodeOption,
    AllowHostOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    RunOption,
    SetOption,
)
from llmctl.cli.run_command import Start, carry_out, find_spec, run_folder

if TYPE_CHECKING:
    from llmctl.jobs.run import JobResult

app = typer.Typer(
    no_args_is_help=True,
    help="Evaluate models on tasks in batch: in this process, in several processes, or on Ray.",
)

MODEL_FAILED, BUDGET_REACHED = 3, 4  # exit codes besides those of llmctl.cli.failures

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="YAML file of the job, e.g. eval/jobs/smoke.yaml.", show_default=False
    ),
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="JOB", help="Folder of a finished job.", show_default=False)
]


@app.command(
    help="Run an evaluation job; an interrupted job continues where it stopped. Exit code 3 means that a "
    "model failed and the others are done, or that more samples failed than fail_on_error allows; exit "
    "code 4 that the budget of tokens or of cost is used up."
)
def run(
    job: JobArgument,
    engine: Annotated[
        Literal["local", "processes", "ray"],
        typer.Option("--engine", help="Run in this process, in several processes, or on Ray."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Number of workers of processes or ray.", show_default="as many as fit"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Address of a Ray cluster, host:port.", show_default="start Ray here"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Maximum number of problems per task.", show_default="as in the job"
        ),
    ] = None,
    max_cost_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-cost-tokens", min=1, help="Stop before the job samples more new tokens than this."
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            min=0,
            help="Stop before the job might cost more than this, at the prices of the recipe.",
        ),
    ] = None,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    allow_code: AllowCodeOption = False,
    allow_host: AllowHostOption = None,
) -> None:
    """Evaluate every model on every task, protocol and seed of the job."""
    from llmctl.jobs.run import Engine

    given = [*(sets or []), *([] if limit is None else [f"limit={limit}"])]
    start = Start(job, folder, given, as_json, dry_run, fresh)
    job_spec = find_spec("llmctl.jobs.run_spec:job_spec")
    spec = job_spec(run_folder(folder, job), Engine(engine, workers, address), max_cost_tokens, max_cost)
    result: JobResult | None = carry_out("eval run", spec, start)
    if result is not None:
        _exit(result)


@app.command(help="Show the metrics of a job with intervals and paired tests, as far as it is finished.")
def show(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Print the summary of the job."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.jobs.partial import job_output
    from llmctl.jobs.show import all_tables

    with job_output(folder) as job:
        summary = job.summary
    if as_json:
        print_json(summary)
        return
    for table in all_tables(summary):
        print_table(table)
    for model, reason in summary["failed"].items():
        print_text(f"{model} failed, and only what it finished before is in the results: {reason}")
    if "unfinished" in summary:
        print_text(
            f"the job is not finished: these are the {summary['unfinished']} shards that are; "
            "`llmctl eval run` continues it"
        )


@app.command(help="Compare two finished jobs on the same problems, problem by problem.")
def compare(
    first: FolderArgument,
    second: Annotated[
        Path, typer.Argument(metavar="JOB", help="Folder of the other job.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Print the second job minus the first, with paired intervals and tests."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.jobs.compare import compare_jobs
    from llmctl.jobs.show import comparison_table

    found = compare_jobs(first, second)
    if as_json:
        print_json(found)
        return
    print_table(comparison_table(found["comparisons"], f"{second} minus {first}, paired by problem."))
    for line in found["differences"]:
        print_text(f"jobs differ: {line}")


@app.command(help="Write the results of a job in another format.")
def export(
    folder: FolderArgument,
    to: Annotated[
        Literal["csv", "markdown", "inspect"],
        typer.Option(
            "--format",
            help="csv: one row per sample. markdown: tables. inspect: logs that inspect_ai can open.",
        ),
    ] = "csv",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; with --format inspect, a folder.",
            show_default="in the job's folder",
        ),
    ] = None,
) -> None:
    """Write the results, and print where they are."""
    from llmctl.cli.output import print_text
    from llmctl.jobs.export import export_job

    for path in export_job(folder, to, output):
        print_text(str(path))


@app.command(help="Check the stored replies of a finished job again with changed tasks, without sampling.")
def rescore(
    folder: FolderArgument,
    sets: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--run", help="New folder for the result.", show_default="the job's folder with -rescored"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a job with the same replies and new rewards, and print what changed."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.jobs.rescore import rescore_job
    from llmctl.jobs.show import all_tables

    found = rescore_job(folder, sets or [], output)
    if as_json:
        changes = {"folder": str(found.folder), "differences": found.differences, "changed": found.changed}
        print_json({**changes, **found.result.to_dict()})
        return
    for table in all_tables(found.result.summary or {}):
        print_table(table)
    for line in found.differences:
        print_text(f"recipe differs: {line}")
    print_text(f"{found.changed:,} of {found.result.rows:,} samples are judged otherwise: {found.folder}")


def _exit(result: JobResult) -> None:
    """Report on stderr what is not done, and exit with its code."""
    from llmctl.cli.failures import say

    for model, reason in result.failed.items():
        say(f"model {model} failed, the others are done: {reason}")
    if result.max_cost is not None:
        say(
            f"stopped at a cost of {result.cost or 0:.4g} of {result.max_cost:.4g} and {result.tokens:,} new "
            "tokens, before a shard that might exceed a budget: the same command with a greater one goes on"
        )
        raise typer.Exit(BUDGET_REACHED)
    if result.budget is not None:
        say(
            f"stopped at {result.tokens:,} of {result.budget:,} new tokens, before a shard that might exceed "
            "the budget: the same command with a greater --max-cost-tokens goes on from here"
        )
        raise typer.Exit(BUDGET_REACHED)
    if result.has_too_many_errors:
        say(
            f"{result.errors:,} of {result.samples:,} samples failed, which is more than fail_on_error "
            f"({result.fail_on_error:g}) allows: the same command asks for these alone again"
        )
    if result.failed or result.has_too_many_errors:
        raise typer.Exit(MODEL_FAILED)
