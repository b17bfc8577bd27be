"""`llmctl eval`: batch evaluation of models on tasks under protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmctl.cli.options import (
    DryRunOption,
    FreshOption,
    JsonOption,
    RunOption,
    SetOption,
    Start,
    run_folder,
)

if TYPE_CHECKING:
    from llmctl.jobs.run import JobResult
    from llmctl.runs import Run

app = typer.Typer(no_args_is_help=True, help="Evaluate models on tasks in batch: here, in processes, on Ray.")

MODEL_FAILED, BUDGET_REACHED = 3, 4  # exit codes beside those of llmctl.cli.failures

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A YAML file, e.g. eval/jobs/smoke.yaml.", show_default=False)
]
FolderArgument = Annotated[Path, typer.Argument(metavar="JOB", help="A job's folder.", show_default=False)]


@app.command(
    help="Run a job, or go on with one. Exit code 3: a model failed, the others are done; 4: no tokens left."
)
def run(
    job: JobArgument,
    engine: Annotated[
        Literal["local", "processes", "ray"], typer.Option("--engine", help="Where it runs.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Workers of processes or ray.", show_default="as many as fit"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="A Ray cluster, host:port.", show_default="Ray is started here"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Problems of each task at most.", show_default="the job's"),
    ] = None,
    max_cost_tokens: Annotated[
        int | None,
        typer.Option("--max-cost-tokens", min=1, help="Stop before more new tokens are sampled."),
    ] = None,
    folder: RunOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
) -> None:
    """Models x tasks x protocols x seeds."""
    from llmctl.jobs.run import Engine, check_job, estimate_job, run_job
    from llmctl.jobs.spec import JobRecipe

    where = Engine(engine, workers, address)
    given = [*(sets or []), *([] if limit is None else [f"limit={limit}"])]
    start = Start(job, folder, given, as_json, dry_run, fresh)
    recipe = start.load(JobRecipe)
    if start.is_plan(recipe, lambda: estimate_job(recipe, run_folder(folder, job))):
        return
    check_job(recipe)
    results: list[JobResult] = []

    def work(open_run: Run) -> JobResult:
        results.append(run_job(open_run, recipe, where, max_tokens=max_cost_tokens, quiet=as_json))
        return results[0]

    start.carry_out("eval run", recipe, work, _print)
    _exit(results[0], as_json)


@app.command(help="The figures of a finished job, with intervals and paired tests.")
def show(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Its summary."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.jobs.show import all_tables, read_summary

    summary = read_summary(folder)
    if as_json:
        print_json(summary)
        return
    for table in all_tables(summary):
        print_table(table)
    for model, reason in summary["failed"].items():
        print_text(f"{model} failed and is not in the results: {reason}")


@app.command(help="Two finished jobs on the same problems, problem by problem.")
def compare(
    first: FolderArgument,
    second: Annotated[Path, typer.Argument(metavar="JOB", help="Another one.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Second minus first, with paired intervals and tests."""
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


@app.command(help="A job's results in another format.")
def export(
    folder: FolderArgument,
    to: Annotated[
        Literal["csv", "markdown", "inspect"],
        typer.Option(
            "--format", help="csv: a row a sample; markdown: tables; inspect: logs that inspect_ai opens."
        ),
    ] = "csv",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File, or folder for inspect.", show_default="in the job's folder"
        ),
    ] = None,
) -> None:
    """Write it and say where."""
    from llmctl.cli.output import print_text
    from llmctl.jobs.export import export_job

    for path in export_job(folder, to, output):
        print_text(str(path))


def _print(open_run: Run, result: JobResult) -> None:
    from llmctl.cli.output import print_table, print_text
    from llmctl.jobs.show import all_tables

    if result.summary is None:
        return
    for table in all_tables(result.summary):
        print_table(table)
    print_text(f"results: {open_run.folder / 'results.parquet'} ({result.rows:,} rows)")


def _exit(result: JobResult, as_json: bool) -> None:
    """Say on stderr what is not done, and end with its code."""
    from llmctl.cli.failures import say

    for model, reason in result.failed.items():
        say(f"model {model} failed, the others are done: {reason}")
    if result.budget is not None:
        say(
            f"stopped at {result.tokens:,} of {result.budget:,} new tokens, before a shard that might pass "
            "them: the same command with a greater --max-cost-tokens goes on from here"
        )
        raise typer.Exit(BUDGET_REACHED)
    if result.failed:
        raise typer.Exit(MODEL_FAILED)
