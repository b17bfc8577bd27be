"""A job as a run: plan, compute what is missing, merge, summarize.

parts/<key>.parquet     one per finished shard
journal/shards.jsonl    one line per finished shard: what it is, its digest, tokens, seconds, errors; a
                        shard that is computed or asked again has one line and one part per attempt
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
from llmctl.jobs.attempts import (
    PARTS,
    SHARDS,
    Todo,
    count_line_errors,
    find_todo,
    latest_lines,
)
from llmctl.jobs.engine import Engine, open_pool
from llmctl.jobs.estimate import check_job, estimate_job
from llmctl.jobs.plan import count_samples, plan_shards
from llmctl.jobs.pools.dispatch import Budget, Dispatcher
from llmctl.jobs.pools.pool import WorkerPool
from llmctl.jobs.pools.worker import OpenSampler, one_line
from llmctl.jobs.prices import ShardPrices, spent_cost
from llmctl.jobs.rates import keep_rates
from llmctl.jobs.recorder import Recorder
from llmctl.jobs.records import Done, ProblemCount, Shard
from llmctl.jobs.results import RESULTS, Part, merge_parts
from llmctl.jobs.show import SUMMARY
from llmctl.jobs.spec import JobRecipe
from llmctl.models.description import check_adapter, fingerprints
from llmctl.runs import Progress, Run, progress
from llmctl.sampling import open_sampler
from llmctl.sampling.open import choose_engine

__all__ = ["Engine", "JobResult", "check_job", "estimate_job", "run_job"]

logger = logging.getLogger(__name__)


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
    errors: int = 0
    """Samples that ended with an error of the engine."""
    samples: int = 0
    """Samples of all finished shards."""
    fail_on_error: float = 0
    """The share of errors that the recipe tolerates."""
    cost: float | None = None
    """Cost so far at the prices of the recipe; None where it has none."""
    max_cost: float | None = None
    """The limit of the cost at which the job stopped, if it did."""
    summary: dict[str, Any] | None = None
    """Content of `summary.json`; None where the job is not finished."""

    @property
    def has_too_many_errors(self) -> bool:
        """Whether more samples failed than the recipe tolerates."""
        return self.errors > self.fail_on_error * self.samples

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
    max_cost: float | None = None,
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
        max_cost: The same for the cost at the prices of the recipe.
        quiet: Show no progress.
        open_model: Opens a sampler, like `open_sampler`; must be importable from its module.

    Returns:
        What was done. Failed models are listed in `failed`; all others are finished.

    Raises:
        UserError: No model can be used, the disk refused to write, or the Ray cluster does not answer.
    """
    run.claim(PARTS, f"journal/{SHARDS}.jsonl", RESULTS, SUMMARY, "report.md", "report.html")
    counts = check_job(recipe) if counts is None else counts
    weights, failed = _weights(recipe, run.manifest.get("notes", {}))
    for model, reason in failed.items():  # at once, since the others may take hours
        logger.warning("model %s cannot be used, the others go on: %s", model, reason)
    problems = {f"problems of {task}": digest for task, (_, digest) in counts.items()}
    run.pin(**problems, **{f"weights of {model}": found for model, found in weights.items()})
    plan = plan_shards(recipe, counts, weights)
    journal = run.journal(SHARDS)
    prices = None if max_cost is None else ShardPrices(recipe)
    usable = [shard for shard in plan if shard.model not in failed]
    todo = find_todo(run.folder, usable, latest_lines(journal))
    spent = sum(line["tokens"] for line in journal)
    budget = Budget(max_tokens, spent, max_cost, spent_cost(recipe, journal))
    result = JobResult(len(plan), 0, 0, failed=failed, fail_on_error=recipe.fail_on_error)
    waiting = {shard.key for shard in todo.shards}
    done = sum(count_samples(recipe, s) for s in plan if s.key in journal and s.key not in waiting)
    total = done + sum(count_samples(recipe, shard) for shard in todo.shards)
    if todo.shards:
        pool = partial(open_pool, recipe, engine, len(todo.shards), open_model)
        with progress(total, "eval", "samples", done=done, quiet=quiet) as bar:
            _compute(run, recipe, todo, pool, budget, prices, result, bar)
    result.tokens = budget.spent
    result.cost = spent_cost(recipe, journal) if recipe.prices else None
    if len(result.failed) == len(recipe.models) and not len(journal):
        name, reason = next(iter(result.failed.items()))
        raise UserError(f"no model of the job can be used; {name}: {reason}")
    if budget.is_used_up:
        result.budget, result.max_cost = max_tokens, max_cost
        return result
    finish_job(run, recipe, plan, result)
    return result


def _weights(recipe: JobRecipe, earlier: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
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
            if (known := earlier.get(f"weights of {name}")) is not None:
                found[name] = known  # so that its finished shards are recognized
    return found, failed


def _has_part(part: Part | None) -> bool:
    return part is not None and part.path.is_file()


def _compute(
    run: Run,
    recipe: JobRecipe,
    todo: Todo,
    make_pool: Callable[[], WorkerPool],
    budget: Budget,
    prices: ShardPrices | None,
    result: JobResult,
    bar: Progress,
) -> None:
    pool = make_pool()
    try:
        dispatcher = Dispatcher(pool, recipe, todo.shards, budget, todo.prepare, prices)
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


def finish_job(run: Run, recipe: JobRecipe, plan: Sequence[Shard], result: JobResult) -> None:
    """Merge and summarize all models; one that failed has the shards that were finished before it did."""
    from llmctl.jobs.report import write_job_report
    from llmctl.jobs.summary import model_costs, protocol_facts, summarize_results

    journal = run.journal(SHARDS)
    lines = latest_lines(journal)
    found = {shard.key: lines[shard.key] for shard in plan if shard.key in lines}
    parts = {key: line.part(run.folder) for key, line in found.items()}
    lost = {s.key for s in plan if s.model in result.failed and not _has_part(parts.get(s.key))}
    whole = [shard for shard in plan if shard.key not in lost]
    path = run.path(RESULTS)
    result.rows = merge_parts(whole, [part for key, part in parts.items() if key not in lost], path)
    result.samples = result.rows
    result.errors = sum(count_line_errors(run.folder, found[s.key]) for s in whole)
    keep_rates(recipe, journal)
    costs = model_costs(journal, recipe.prices)
    result.summary = summarize_results(path, recipe, costs, result.failed, protocol_facts(recipe))
    run.write_json(SUMMARY, result.summary)
    write_job_report(run, recipe, result.summary)
