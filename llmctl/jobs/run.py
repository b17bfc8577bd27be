"""A job as a run: plan, compute what is missing, merge, summarize.

parts/<key>.parquet     one per finished shard
journal/shards.jsonl    one line per finished shard: what it is, its digest, tokens, seconds
results.parquet         all samples, in the order of the plan
summary.json            metrics of each model x task x protocol, and paired tests between models
report.md, report.html  the same in tables
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmctl.errors import LlmctlError, UserError
from llmctl.jobs.dispatch import Budget, Dispatcher
from llmctl.jobs.engine import Engine, open_pool
from llmctl.jobs.estimate import check_job, estimate_job
from llmctl.jobs.plan import count_samples, plan_shards
from llmctl.jobs.pool import WorkerPool
from llmctl.jobs.rates import keep_rates
from llmctl.jobs.recorder import PARTS, SHARDS, Recorder, recorded_parts
from llmctl.jobs.records import Done, ProblemCount, Shard
from llmctl.jobs.results import RESULTS, merge_parts
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.worker import OpenSampler, one_line
from llmctl.models.description import check_adapter, fingerprints
from llmctl.runs import Progress, Run, progress
from llmctl.sampling import open_sampler
from llmctl.sampling.open import choose_engine

__all__ = ["Engine", "JobResult", "check_job", "estimate_job", "run_job"]

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"


@dataclass
class JobResult:
    """The outcome of one start of a job."""

    shards: int
    """Shards of the plan."""
    computed: int
    """Shards that this start computed."""
    tokens: int
    """New tokens of all finished shards."""
    rows: int | None = None
    """Rows of the results; None where the job is not finished."""
    failed: dict[str, str] = field(default_factory=dict)
    """Models that failed, and why."""
    budget: int | None = None
    """The limit of new tokens at which the job stopped, if it did."""
    summary: dict[str, Any] | None = None
    """Content of `summary.json`; None where the job is not finished."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return dict(vars(self))


def run_job(
    run: Run,
    recipe: JobRecipe,
    engine: Engine = Engine(),  # noqa: B008  frozen
    *,
    counts: Mapping[str, ProblemCount] | None = None,
    max_tokens: int | None = None,
    quiet: bool = False,
    open_model: OpenSampler = open_sampler,
) -> JobResult:
    """Compute the missing shards of a job, and write its results and summary.

    Args:
        run: The open run, made with this recipe.
        recipe: The resolved recipe.
        engine: Where it runs.
        counts: What `check_job` returned; None runs the checks here.
        max_tokens: Limit of new tokens for the whole job, earlier starts included. A shard that might
            pass it is not started, and the job stops when no other shard can be started.
        quiet: Show no progress.
        open_model: Opens a sampler, like `open_sampler`; must be importable from its module.

    Returns:
        What was done. Failed models are listed in `failed`; all others are finished.

    Raises:
        UserError: No model can be used, the disk refused to write, or the Ray cluster does not answer.
    """
    run.claim(PARTS, f"journal/{SHARDS}.jsonl", RESULTS, SUMMARY, "report.md", "report.html")
    counts = check_job(recipe) if counts is None else counts
    weights, failed = _weights(recipe)
    for model, reason in failed.items():  # at once, since the others may take hours
        logger.warning("model %s cannot be used, the others go on: %s", model, reason)
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


def _weights(recipe: JobRecipe) -> tuple[dict[str, Any], dict[str, str]]:
    """What identifies the weights of each model, and the models that cannot be used."""
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
    make_pool: Callable[[], WorkerPool],
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
    """Merge and summarize the models that did not fail."""
    from llmctl.jobs.report import write_job_report
    from llmctl.jobs.summary import model_costs, protocol_facts, summarize_results

    whole = [shard for shard in plan if shard.model not in result.failed]
    lines = [line for line in run.journal(SHARDS) if line["model"] not in result.failed]
    path = run.path(RESULTS)
    result.rows = merge_parts(whole, recorded_parts(run.folder, lines), path)
    keep_rates(recipe, lines)
    result.summary = summarize_results(
        path, recipe, model_costs(lines), result.failed, protocol_facts(recipe)
    )
    run.write_json(SUMMARY, result.summary)
    write_job_report(run, recipe, result.summary)
