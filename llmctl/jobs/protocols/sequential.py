"""The protocol sequential: R turns per problem without an oracle, as RISE is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.jobs.metrics import estimate, stack
from llmctl.jobs.protocols.base import GroupResults, JobProtocol, PrimaryMetric, RunShard, WorkerContext
from llmctl.jobs.protocols.sampled import (
    READING,
    attempt_row,
    mean_metrics,
    needs_asking,
    player,
    rows_by_problem,
)
from llmctl.jobs.records import ResultRow, Shard
from llmctl.jobs.sections import ProtocolSpec
from llmctl.rise.records import Turn
from llmctl.rise.rollout import rollout
from llmctl.rise.turns import judge
from llmctl.runs import Estimate
from llmctl.sampling import Completion, Sampler
from llmctl.tasks import Problem, Task

_MESSAGE_BYTES = 200  # of the message after a turn, and of the chat template around it


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
            kept = rows_by_problem(shard.earlier)
            problems, asked = context.problems(shard), player(context, name, sampler, shard)
            todo = [problem for problem in problems if needs_asking(kept.get(problem.id))]
            earlier = [turns_before_error(asked.task, p, kept.get(p.id, ())) for p in todo]
            played = rollout(asked, todo, turns, seed=shard.seed, stop_when_correct=False, earlier=earlier)
            episodes = {problem.id: episode for problem, episode in zip(todo, played, strict=True)}
            rows: list[ResultRow] = []
            for problem in problems:
                if problem.id in episodes:
                    found = enumerate(episodes[problem.id], start=1)
                    rows += [attempt_row(problem, 0, turn, attempt) for turn, attempt in found]
                else:
                    rows += kept[problem.id]
            return rows

        return run

    def most_prompt_tokens(self, spec: ProtocolSpec, prompt_bytes: int, max_tokens: int) -> int:
        """Every turn reads the problem and all turns before it again."""
        per_turn = max_tokens + prompt_bytes + _MESSAGE_BYTES
        return spec.n * prompt_bytes + spec.n * (spec.n - 1) // 2 * per_turn

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


def turns_before_error(task: Task, problem: Problem, rows: Sequence[ResultRow]) -> list[Turn]:
    """The turns of an episode that an error cut short, judged again for the messages that follow them."""
    turns: list[Turn] = []
    for row in rows:
        if row.status == "error":
            break
        reason = "length" if row.status == "truncated" else "stop"
        reply = Completion(row.text, finish_reason=reason, counted_tokens=row.tokens)
        turns.append(judge(task, problem, reply, turns))
    return turns


PROTOCOL = Sequential()
