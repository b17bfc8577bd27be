"""What single, parallel and sequential share: samples of a task's problems, and rows of their answers."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.jobs.metrics import estimate, mean_estimate, stack
from llmctl.jobs.protocols.base import GroupResults, RunShard, WorkerContext
from llmctl.jobs.records import ResultRow, Shard
from llmctl.rise.records import Turn
from llmctl.rise.rollout import Player
from llmctl.rise.turns import judge
from llmctl.runs import Estimate
from llmctl.runs.stats import rate_of_clusters
from llmctl.sampling import Sampler
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem

READING = (
    "`m1_t1` is one sample. A vote of n parallel samples, `m<n>_t1`, costs as many samples as a vote over n "
    "turns without an oracle, `m1_t<n>`; and `pass_<n>` as many as any of n turns being right, `p1_t<n>`. "
    "Compare within these pairs. Intervals are of 95 %, over problems: samples and seeds of one problem are "
    "not treated as independent. Samples that failed with an error are counted and left out; a refused "
    "sample, and one whose prompt is too long for the model, count as wrong."
)


def player(context: WorkerContext, name: str, sampler: Sampler | None, shard: Shard) -> Player:
    """The sampler and task of a shard, with the sampling settings of its protocol."""
    if sampler is None:
        raise ValueError(f"protocol {name} samples, and needs an open sampler")
    sampling = context.recipe.protocol_sampling(name)
    return Player(sampler, context.task(shard.task), sampling, marks_too_long=True)


def run_samples(context: WorkerContext, name: str, samples: int) -> RunShard:
    """A function that draws independent samples for each problem of a shard."""

    def run(sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
        kept = rows_by_problem(shard.earlier)
        problems, asked = context.problems(shard), player(context, name, sampler, shard)
        todo = [problem for problem in problems if needs_asking(kept.get(problem.id))]
        # The seed of a rollout's first turn, so that every protocol begins with the same sample.
        replies = asked.ask(todo, [[] for _ in todo], samples, derive_seed(shard.seed, 0))
        drawn = {problem.id: row for problem, row in zip(todo, replies, strict=True)}
        rows: list[ResultRow] = []
        for problem in problems:
            old = {row.sample: row for row in kept.get(problem.id, ()) if row.status != "error"}
            rows += [
                old[sample]
                if sample in old
                else attempt_row(problem, sample, 1, judge(asked.task, problem, drawn[problem.id][sample]))
                for sample in range(samples)
            ]
        return rows

    return run


def rows_by_problem(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """The rows of an earlier attempt by the id of their problem, in their order."""
    found: dict[str, list[ResultRow]] = {}
    for row in rows:
        found.setdefault(row.problem, []).append(row)
    return found


def needs_asking(rows: Sequence[ResultRow] | None) -> bool:
    """Whether a problem has no rows from an earlier attempt, or one whose sample failed."""
    return rows is None or any(row.status == "error" for row in rows)


def attempt_row(problem: Problem, sample: int, turn: int, attempt: Turn) -> ResultRow:
    """The row of one judged sample."""
    return ResultRow(
        problem=problem.id,
        sample=sample,
        turn=turn,
        text=attempt.text,
        reward=attempt.reward,
        tokens=attempt.tokens,
        is_correct=attempt.is_correct,
        answer=attempt.answer,
        error=attempt.error,
        status=attempt.status,
    )


def one_sample_metric(results: GroupResults) -> Estimate:
    """`m1_t1`: the share of samples that are right, clustered by problem where a problem has several."""
    correct, samples = stack(results.groups, "correct"), stack(results.groups, "samples")
    answered = samples.sum(0) > 0  # (P,) without the problems whose every sample failed
    correct, samples = correct[:, answered], samples[:, answered]
    if bool((samples == 1).all()):
        return estimate(correct, results.bootstrap_seed)
    return rate_of_clusters(correct.sum(0), samples.sum(0))


def mean_metrics(results: GroupResults) -> dict[str, Estimate]:
    """Mean `reward` and `tokens` of a sample."""
    samples = stack(results.groups, "samples").sum(0)
    answered = samples > 0
    return {
        name: mean_estimate(
            stack(results.groups, name).sum(0)[answered] / samples[answered], results.bootstrap_seed
        )
        for name in ("reward", "tokens")
    }
