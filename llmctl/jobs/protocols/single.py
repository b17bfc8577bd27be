"""The protocol single: one sample per problem."""

from __future__ import annotations

from llmctl.jobs.protocols.base import GroupResults, JobProtocol, PrimaryMetric, RunShard, WorkerContext
from llmctl.jobs.protocols.sampled import READING, mean_metrics, one_sample_metric, run_samples
from llmctl.jobs.sections import ProtocolSpec
from llmctl.runs import Estimate


class Single(JobProtocol):
    """One sample per problem."""

    description = "one sample per problem"
    reading = READING

    def open(self, context: WorkerContext, name: str) -> RunShard:
        """See `JobProtocol.open`."""
        return run_samples(context, name, 1)

    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """`m1_t1`, `reward` and `tokens`."""
        return {"m1_t1": one_sample_metric(results), **mean_metrics(results)}

    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """Whether the sample is right."""
        return PrimaryMetric("m1_t1", "first")


PROTOCOL = Single()
