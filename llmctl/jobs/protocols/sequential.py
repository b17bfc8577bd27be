"""The protocol sequential: R turns per problem without an oracle, as RISE is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.jobs.metrics import estimate, stack
from llmctl.jobs.protocols.base import GroupResults, JobProtocol, PrimaryMetric, RunShard, WorkerContext
from llmctl.jobs.protocols.sampled import READING, attempt_row, mean_metrics, player
from llmctl.jobs.records import ResultRow, Shard
from llmctl.jobs.sections import ProtocolSpec
from llmctl.rise.rollout import rollout
from llmctl.runs import Estimate
from llmctl.sampling import Sampler


class Sequential(JobProtocol):
    """`n` turns per problem; the model is not told whether a turn is right."""

    description = "R turns per problem without an oracle, as RISE is evaluated"
    reading = READING
    equal_compute = "parallel"

    def samples(self, spec: ProtocolSpec) -> int:
        """Turns per problem."""
        return spec.n

    def open(self, context: WorkerContext, name: str) -> RunShard:
        """See `JobProtocol.open`."""
        turns = context.recipe.protocols[name].n

        def run(sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
            problems, asked = context.problems(shard), player(context, name, sampler, shard)
            episodes = rollout(asked, problems, turns, seed=shard.seed, stop_when_correct=False)
            return [
                attempt_row(problem, 0, turn, attempt)
                for problem, episode in zip(problems, episodes, strict=True)
                for turn, attempt in enumerate(episode, start=1)
            ]

        return run

    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """`m1_t1`, the vote `m1_t<n>`, `p1_t<n>` (any turn is right), `last_turn`, `reward`, `tokens`."""
        n = results.spec.n
        names = {"m1_t1": "first", f"m1_t{n}": "vote", f"p1_t{n}": "any", "last_turn": "last"}
        found = {
            name: estimate(stack(results.groups, values), results.bootstrap_seed)
            for name, values in names.items()
        }
        return {**found, **mean_metrics(results)}

    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """The vote over all turns."""
        return PrimaryMetric(f"m1_t{spec.n}", "vote")

    def group_facts(self, results: GroupResults) -> dict[str, Any]:
        """`flows`: how many turns became right or wrong after the turn before."""
        flows = results.groups[0].flows
        return {"flows": {name: sum(group.flows[name] for group in results.groups) for name in flows}}


PROTOCOL = Sequential()
