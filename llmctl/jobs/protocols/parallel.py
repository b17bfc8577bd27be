"""The protocol parallel: n samples per problem, and a vote."""

from __future__ import annotations

import numpy as np

from llmctl.jobs.metrics import Floats, estimate, stack
from llmctl.jobs.protocols.base import GroupResults, JobProtocol, PrimaryMetric, RunShard, WorkerContext
from llmctl.jobs.protocols.sampled import READING, mean_metrics, one_sample_metric, run_samples
from llmctl.jobs.sections import ProtocolSpec
from llmctl.rise.metrics import pass_at_k
from llmctl.runs import Estimate


class Parallel(JobProtocol):
    """`n` independent samples per problem."""

    description = "n samples per problem, and a vote"
    reading = READING

    def samples(self, spec: ProtocolSpec) -> int:
        """Samples per problem."""
        return spec.n

    def open(self, context: WorkerContext, name: str) -> RunShard:
        """See `JobProtocol.open`."""
        return run_samples(context, name, context.recipe.protocols[name].n)

    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """`m1_t1`, the vote `m<n>_t1`, `pass_<k>` for k = 2, 4, 8, ... and n, `reward` and `tokens`."""
        n, seed, groups = results.spec.n, results.bootstrap_seed, results.groups
        correct, samples = stack(groups, "correct"), stack(groups, "samples")
        found = {"m1_t1": one_sample_metric(results)}
        found[f"m{n}_t1"] = estimate(stack(groups, "vote"), seed)
        for k in pass_sizes(n):
            found[f"pass_{k}"] = estimate(pass_at(correct, samples, k), seed)
        return {**found, **mean_metrics(results)}

    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """The vote of all samples."""
        return PrimaryMetric(f"m{spec.n}_t1", "vote")


def pass_sizes(n: int) -> list[int]:
    """2, 4, 8, ... and n; one sample is `m1_t1`."""
    return sorted({1 << power for power in range(1, n.bit_length())} | {n})


def pass_at(correct: Floats, samples: Floats, k: int) -> Floats:
    """pass@k of each problem; with fewer samples than k, whether any is right.

    Args:
        correct: (S, P) samples that are right, by seed and problem.
        samples: (S, P) all samples.
        k: Samples of which one must be right.

    Returns:
        (S, P) probabilities; NaN where no sample was answered.
    """
    width = samples.max(initial=0) + 1
    kinds, which = np.unique(samples * width + correct, return_inverse=True)
    table = [
        pass_at_k(n, c, min(k, n)) if n else float("nan")
        for n, c in ((int(kind // width), int(kind % width)) for kind in kinds)
    ]
    return np.array(table)[which].reshape(correct.shape)


PROTOCOL = Parallel()
