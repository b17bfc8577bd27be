"""A job as a run: plan, compute what is missing, merge, sum up.

parts/<key>.parquet     one a finished shard
journal/shards.jsonl    one line a finished shard: what it is, its digest, tokens, seconds
results.parquet         all samples, in the order of the plan
summary.json            figures of each model x task x protocol, and paired tests between models
report.md, report.html  the same in tables
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llmctl.errors import LlmctlError, UserError
from llmctl.jobs.dispatch import Budget, Dispatcher
from llmctl.jobs.plan import Shard, count_problems, count_samples, most_tokens, open_tasks, plan_shards
from llmctl.jobs.pool import LocalPool, Pool, ProcessPool
from llmctl.jobs.ranking import count_users, describe_rankings
from llmctl.jobs.rates import keep_rates, known_rates
from llmctl.jobs.record import PARTS, SHARDS, Recorder, recorded_parts
from llmctl.jobs.results import RESULTS, merge_parts
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.worker import Done, OpenSampler, one_line
from llmctl.models.description import check_adapter, fingerprints
from llmctl.runs import Progress, Run, progress
from llmctl.runs.progress import format_seconds
from llmctl.sampling import open_sampler
from llmctl.sampling.open import check_options, choose_engine

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
EngineName = Literal["local", "processes", "ray"]
Counts = dict[str, tuple[int, str]]  # of problems and users by name: how many, and a hash of them


@dataclass(frozen=True)
class Engine:
    """Where a job runs. Results do not depend on it."""

    name: EngineName = "local"
    workers: int | None = None  # processes and ray; what the machine or the cluster has room for where None
    address: str | None = None  # of a Ray cluster; None starts Ray on this machine

    def __post_init__(self) -> None:
        """Refuse options that the engine has no use for.

        Raises:
            UserError: No such engine, or an option of another one.
        """
        if self.name not in ("local", "processes", "ray"):
            raise UserError(f"engine is {self.name!r}, but a job runs on local, processes or ray")
        if self.workers is not None and self.name == "local":
            raise UserError("workers are given, but engine local is one process: take processes or ray")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers is {self.workers}, but at least 1 is needed")
        if self.address is not None and self.name != "ray":
            raise UserError(
                f"address {self.address} is a Ray cluster's, but engine is {self.name}: take engine ray"
            )


@dataclass
class JobResult:
    """What came of a start of a job."""

    shards: int  # of the plan
    computed: int  # by this start
    tokens: int  # new ones, of all shards that are done
    rows: int | None = None  # of the results; None where the job is not whole
    failed: dict[str, str] = field(default_factory=dict)  # model -> reason
    budget: int | None = None  # that it stopped at
    summary: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return dict(vars(self))


def check_job(recipe: JobRecipe) -> Counts:
    """Find mistakes that would otherwise stop a job after its folder was made.

    Returns:
        Number and hash of the problems of each task, and of the users of each ranking.

    Raises:
        UserError: A task, a file, an option of a sampler, or the run of a ranking is wrong.
    """
    for spec in recipe.models.values():
        check_options(choose_engine(spec.engine)[0], spec.sampler_options)
    return count_problems(recipe, open_tasks(recipe)) | count_users(recipe)


def run_job(
    run: Run,
    recipe: JobRecipe,
    engine: Engine = Engine(),  # noqa: B008  frozen
    *,
    counts: Counts | None = None,
    max_tokens: int | None = None,
    quiet: bool = False,
    open_model: OpenSampler = open_sampler,
) -> JobResult:
    """Do what is missing of a job; results and summary are in its folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        engine: Where it runs.
        counts: What `check_job` returned; None runs the checks here.
        max_tokens: New tokens of the whole job, earlier starts included; a shard that might pass it is
            not begun, and the job stops where nothing else can be.
        quiet: No progress.
        open_model: Opens a sampler, as `open_sampler`; a function of a module.

    Returns:
        What was done. Models that failed are in `failed`; the others are finished.

    Raises:
        UserError: No model can be used, the disk refused, or the Ray cluster does not answer.
    """
    run.claim(PARTS, f"journal/{SHARDS}.jsonl", RESULTS, SUMMARY, "report.md", "report.html")
    counts = check_job(recipe) if counts is None else counts
    weights, failed = _weights(recipe)
    for model, reason in failed.items():  # now, since the others may take hours
        logger.warning("model %s can not be used, the others go on: %s", model, reason)
    problems = {f"problems of {task}": digest for task, (_, digest) in counts.items()}
    run.pin(**problems, **{f"weights of {model}": found for model, found in weights.items()})
    plan = plan_shards(recipe, counts, weights)
    journal = run.journal(SHARDS)
    todo = [shard for shard in plan if shard.key not in journal and shard.model not in failed]
    budget = Budget(max_tokens, sum(line["tokens"] for line in journal))
    result = JobResult(len(plan), 0, 0, failed=failed)
    done = sum(count_samples(recipe, shard) for shard in plan if shard.key in journal)
    total = done + sum(count_samples(recipe, shard) for shard in todo)
    if todo:
        pool = partial(open_pool, recipe, engine, len(todo), open_model)
        with progress(total, "eval", "samples", done=done, quiet=quiet) as bar:
            _compute(run, recipe, todo, pool, budget, result, bar)
    result.tokens = budget.spent
    if len(result.failed) == len(recipe.models):
        name, reason = next(iter(result.failed.items()))
        raise UserError(f"no model of the job can be used; {name}: {reason}")
    if budget.is_used_up:
        result.budget = max_tokens
        return result
    _finish(run, recipe, plan, result)
    return result


def open_pool(recipe: JobRecipe, engine: Engine, shards: int, open_model: OpenSampler) -> Pool:
    """The workers of an engine, no more than there are shards.

    Raises:
        UserError: Ray is missing, or its cluster does not answer or has no room.
    """
    if engine.name == "local":
        return LocalPool(recipe, open_model)
    if engine.name == "processes":
        import os

        fit = max(1, int((os.cpu_count() or 1) / recipe.workers.cpus))
        return ProcessPool(recipe, min(engine.workers or fit, shards), open_model)
    from llmctl.jobs.ray_pool import RayPool

    return RayPool(recipe, engine.workers, shards, engine.address, open_model)


def estimate_job(recipe: JobRecipe, folder: Path) -> dict[str, Any]:
    """What a job means at most, and how long at rates that were measured; for `--dry-run`."""
    counts = check_job(recipe)
    plan = plan_shards(recipe, counts, {})
    rates = known_rates(recipe, folder)
    work: dict[str, Any] = {
        "problems": sum(count for count, _ in counts.values()),
        "shards": len(plan),
        "samples": sum(count_samples(recipe, shard) for shard in plan),
        "new tokens, at most": sum(most_tokens(recipe, shard) for shard in plan),
    }
    for model in recipe.models:
        most = sum(most_tokens(recipe, shard) for shard in plan if shard.model == model)
        if model in rates:
            seconds = format_seconds(most / rates[model])
            work[f"time of {model}, at most"] = (
                f"{seconds} of one worker at {rates[model]:.3g} tokens/s as measured"
            )
        else:
            work[f"time of {model}"] = "no measured rate yet"
    return work


def _weights(recipe: JobRecipe) -> tuple[dict[str, Any], dict[str, str]]:
    """What identifies each model's weights, and the models that are not there."""
    found: dict[str, Any] = {}
    failed = {}
    for name, spec in recipe.models.items():
        try:
            if choose_engine(spec.engine)[0] == "server":
                found[name] = "of a server"
                continue
            check_adapter(spec.adapter, f"models.{name}.adapter")
            found[name] = fingerprints(spec.model, spec.adapter)
        except (LlmctlError, OSError) as error:
            failed[name] = one_line(error)
    return found, failed


def _compute(
    run: Run,
    recipe: JobRecipe,
    todo: Sequence[Shard],
    make_pool: Callable[[], Pool],
    budget: Budget,
    result: JobResult,
    bar: Progress,
) -> None:
    pool = make_pool()
    try:
        dispatcher = Dispatcher(pool, recipe, todo, budget)
        with Recorder(run) as recorder:
            for outcome in dispatcher.outcomes():
                if isinstance(outcome, Done):
                    recorder.put(outcome)
                    result.computed += 1
                    bar.advance(count_samples(recipe, outcome.shard))
                else:
                    result.failed[outcome.shard.model] = outcome.reason
                    bar.advance(0, note=f"{outcome.shard.model} failed")
    finally:
        pool.close()


def _finish(run: Run, recipe: JobRecipe, plan: Sequence[Shard], result: JobResult) -> None:
    """Merge and sum up the models that did not fail."""
    from llmctl.jobs.report import write_job_report
    from llmctl.jobs.summary import summarize_results

    whole = [shard for shard in plan if shard.model not in result.failed]
    lines = [line for line in run.journal(SHARDS) if line["model"] not in result.failed]
    path = run.path(RESULTS)
    result.rows = merge_parts(whole, recorded_parts(run.folder, lines), path)
    keep_rates(recipe, lines)
    ranked = describe_rankings(recipe)
    result.summary = summarize_results(path, recipe, _costs(lines), result.failed, ranked)
    run.write_json(SUMMARY, result.summary)
    write_job_report(run, recipe, result.summary)


def _costs(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Tokens and seconds by model."""
    costs: dict[str, dict[str, float]] = {}
    for line in lines:
        mine = costs.setdefault(line["model"], {"prompt_tokens": 0, "new_tokens": 0})
        mine["prompt_tokens"] += line["prompt_tokens"]
        mine["new_tokens"] += line["tokens"]
    return costs
