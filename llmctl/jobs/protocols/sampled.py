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
    "not treated as independent."
)


def player(context: WorkerContext, name: str, sampler: Sampler | None, shard: Shard) -> Player:
    """The sampler and task of a shard, with the sampling settings of its protocol."""
    if sampler is None:
        raise ValueError(f"protocol {name} samples, and needs an open sampler")
    return Player(sampler, context.task(shard.task), context.recipe.protocol_sampling(name))


def run_samples(context: WorkerContext, name: str, samples: int) -> RunShard:
    """A function that draws independent samples for each problem of a shard."""

    def run(sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
        problems, asked = context.problems(shard), player(context, name, sampler, shard)
        # The seed of a rollout's first turn, so that every protocol begins with the same sample.
        replies = asked.ask(problems, [[] for _ in problems], samples, derive_seed(shard.seed, 0))
        return [
            attempt_row(problem, sample, 1, judge(asked.task, problem, reply))
            for problem, row in zip(problems, replies, strict=True)
            for sample, reply in enumerate(row)
        ]

    return run


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
    )


def one_sample_metric(results: GroupResults) -> Estimate:
    """`m1_t1`: the share of samples that are right, clustered by problem where a problem has several."""
    correct, samples = stack(results.groups, "correct"), stack(results.groups, "samples")
    if bool((samples == 1).all()):
        return estimate(correct, results.bootstrap_seed)
    return rate_of_clusters(correct.sum(0), samples.sum(0))


def mean_metrics(results: GroupResults) -> dict[str, Estimate]:
    """Mean `reward` and `tokens` of a sample."""
    samples = stack(results.groups, "samples").sum(0)
    return {
        name: mean_estimate(stack(results.groups, name).sum(0) / samples, results.bootstrap_seed)
        for name in ("reward", "tokens")
    }
