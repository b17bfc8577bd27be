"""The protocol msr_ranking: the candidate lists of an msr run, ranked by P(yes).

Models are asked the same questions as in that run. A row is a candidate of a test user: `problem` is the
user, `sample` the index in the frozen list, `text` the item, `reward` P(yes), `is_correct` whether it is the
item that the user chose next, and `answer` the share of all probability that is on yes or no. Users are the
independent units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.jobs.metrics import Floats, mean_estimate, stack
from llmctl.jobs.protocols.base import (
    GroupResults,
    JobProtocol,
    PrimaryMetric,
    RunShard,
    ShardCuts,
    WorkerContext,
)
from llmctl.jobs.records import ProblemCount, ResultRow, Shard
from llmctl.jobs.sections import ProtocolSpec
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Estimate
from llmctl.sampling import Sampler
from llmctl.sampling.open import choose_engine

if TYPE_CHECKING:
    from llmctl.msr.recommender.prompt import AnswerTokens, Case
    from llmctl.msr.types import CandidateList


class MsrRanking(JobProtocol):
    """A ranking of candidates, which reads probabilities and samples no text."""

    description = "the frozen candidates of an msr run, ranked by P(yes)"
    reading = (
        "A ranking asks a model whether a user will choose each item of a frozen list, and ranks the list by "
        "P(yes). Its metrics use the expected rank under ties, and `answer_mass` is the share of all "
        "probability that is on yes or no. Intervals are of 95 %, over users."
    )
    task_name = "candidates"
    fields = frozenset({"run", "arm"})
    unmatched_fields = frozenset({"run", "arm", "shards"})
    engine = "scoring"
    samples_text = False
    reads_answers = False
    hidden = frozenset(f"{metric}@{k}" for metric in ("hr", "mrr", "ndcg") for k in (3, 10))

    def check(self, spec: ProtocolSpec) -> None:
        """See `JobProtocol.check`."""
        if spec.run is None:
            raise ValueError("run is missing: an msr_ranking needs the folder of an msr run")

    def seeds(self, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """The first one: nothing is drawn."""
        return seeds[:1]

    def count(self, recipe: JobRecipe, name: str) -> ProblemCount:
        """The test users, at most the job's limit.

        Raises:
            UserError: As `Ranking`; or a model's engine gives no probabilities of tokens.
        """
        from llmctl.models import resolve

        for model, entry in recipe.models.items():
            if choose_engine(entry.engine)[0] == "server":
                raise UserError(
                    f"models.{model}.engine is server, but {name} ranks by the probability of yes and no, "
                    "and a server shows no vocabulary to read them from: set it to transformers or vllm"
                )
        ranking = Ranking(name, recipe.protocols[name])
        resolve(ranking.arm.recommender.model)  # its tokenizer says how much of a history is shown
        users = ranking.users if recipe.limit is None else min(recipe.limit, ranking.users)
        return ProblemCount(users, ranking.digest())

    def shards(self, recipe: JobRecipe, name: str, found: ProblemCount | None) -> ShardCuts:
        """The users in `shards` parts of equal size, give or take one user."""
        count, digest = found or self.count(recipe, name)
        parts = min(recipe.protocols[name].shards, count)
        bounds = [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
        return ShardCuts(bounds, digest)

    def open(self, context: WorkerContext, name: str) -> RunShard:
        """See `JobProtocol.open`."""
        return RankShard(context.recipe, Ranking(name, context.recipe.protocols[name]))

    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """`auc`, `hr@k`, `mrr@k`, `ndcg@k`, and `answer_mass`."""
        names = [name for name in results.groups[0].values if "@" in name or name in ("auc", "answer_mass")]
        return {
            name: mean_estimate(stack(results.groups, name).mean(0), results.bootstrap_seed) for name in names
        }

    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """The area under the curve, which uses the whole list of every user."""
        return PrimaryMetric("auc", "auc")

    def problem_values(self, table: Any, samples: Floats) -> dict[str, Floats]:
        """The metrics of each user, and `answer_mass`, the mean over the user's candidates."""
        from llmctl.msr.evaluation.metrics import rank_counts, user_metrics

        shape = len(samples), int(samples[0])  # all lists have the same length
        scores, labels, mass = (
            table[name].cast("float64").to_numpy().reshape(shape)
            for name in ("reward", "is_correct", "answer")
        )
        return {**user_metrics(rank_counts(scores, labels)), "answer_mass": mass.mean(1)}

    def facts(self, recipe: JobRecipe, name: str) -> dict[str, Any]:
        """The run, the arm, the hash of the lists, and the metrics of a recommender that guesses."""
        spec = recipe.protocols[name]
        ranking = Ranking(name, spec)
        return {
            "run": str(spec.run),
            "arm": ranking.arm.name,
            "candidate_hash": ranking.candidate_hash,
            "chance": ranking.chance,
        }

    def caption(self, name: str, entries: Sequence[Mapping[str, Any]]) -> str:
        """See `JobProtocol.caption`."""
        entry = entries[0]
        chance = ", ".join(f"{k} {v:.3f}" for k, v in entry["chance"].items() if k not in self.hidden)
        return (
            f"{name}: 95 % intervals over users ({entry['problems']:,} users, {entry['samples']:,} "
            f"candidates per row), asked as arm {entry['arm']} of {entry['run']}; hash of the lists "
            f"{entry['candidate_hash'][:12]}. By chance: {chance}."
        )

    def check_comparable(
        self, name: str, jobs: tuple[Path, Path], first: Mapping[str, Any], second: Mapping[str, Any]
    ) -> None:
        """Refuse lists of another hash; runs and arms may differ."""
        hashes = first.get("candidate_hash"), second.get("candidate_hash")
        if hashes[0] != hashes[1]:
            raise UserError(
                f"{jobs[0]} and {jobs[1]} rank different candidates under {name} (hash {hashes[0]} and "
                f"{hashes[1]}): compare jobs on runs with the same data and lists (candidates.path)"
            )


class RankShard:
    """Ranks the candidates of a shard's users.

    Args:
        recipe: The job's recipe.
        ranking: The run that is ranked on.
    """

    def __init__(self, recipe: JobRecipe, ranking: Ranking) -> None:
        self.recipe, self.ranking = recipe, ranking
        self._answers: tuple[str, AnswerTokens] | None = None  # of the base model that was asked last

    def __call__(self, sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
        """The rows of a shard."""
        from llmctl.msr.phases import tokenizer_of
        from llmctl.msr.recommender.prompt import find_answer_tokens

        if sampler is None:
            raise ValueError(f"protocol {shard.protocol} needs an open sampler")
        model = self.recipe.models[shard.model]
        self.ranking.check_model(model.model)
        if self._answers is None or self._answers[0] != model.base:
            self._answers = (model.base, find_answer_tokens(tokenizer_of(sampler), model.model))
        return list(self.ranking.score(sampler, self._answers[1], shard.start, shard.stop))


class Ranking:
    """The test users of an msr run, as one of its arms asks about them.

    Args:
        protocol: Name of an msr_ranking in the job.
        spec: Settings of that protocol.

    Raises:
        UserError: The folder is no prepared msr run, its lists were changed, it has no such arm, or lacks
            what the arm reads.
    """

    def __init__(self, protocol: str, spec: ProtocolSpec) -> None:
        from llmctl.msr.recommender.examples import CaseReader

        if spec.run is None:
            raise ValueError(f"protocol {protocol} names no run")
        try:
            if not (spec.run / "recipe.yaml").is_file():
                raise UserError(f"run {spec.run} is no run: give the folder of an `llmctl msr run`")
            self._reader = CaseReader.open(spec.run)
            arms = self._reader.recipe.resolved_arms
            names = [arm.name for arm in arms]
            if spec.arm is not None and spec.arm not in names:
                raise UserError(f"arm is {spec.arm!r}, but the arms of {spec.run} are {', '.join(names)}")
            self.arm = arms[0 if spec.arm is None else names.index(spec.arm)]
            self._reader.require_summaries(self.arm)
        except UserError as error:
            raise UserError(f"protocols.{protocol}: {error}") from error

    @property
    def users(self) -> int:
        """Number of test users."""
        return self._reader.prepared.users("test")

    @property
    def candidate_hash(self) -> str:
        """Hash of the data and the lists; metrics on lists of another hash cannot be compared."""
        return self._reader.prepared.candidate_hash

    @property
    def chance(self) -> dict[str, float]:
        """Each metric of a recommender that guesses."""
        return dict(self._reader.prepared.facts["chance"])

    def digest(self) -> str:
        """A hash of all that is asked."""
        return self._reader.digest(self.arm)

    def check_model(self, model: str) -> None:
        """Refuse a model that cannot read what the arm shows.

        Raises:
            UserError: The arm shows images, and the model reads none.
        """
        from llmctl.models.description import reads_images

        if self.arm.recommender.variant == "image" and not reads_images(model):
            raise UserError(
                f"arm {self.arm.name} shows images, but {model} reads none: rank with a vision-language "
                "model, or take another arm"
            )

    def score(self, sampler: Sampler, tokens: AnswerTokens, start: int, stop: int) -> Iterator[ResultRow]:
        """The rows of users [start, stop), scored as `llmctl msr eval` scores them.

        Raises:
            UserError: A question does not fit into the model's context.
        """
        from llmctl.msr.recommender.scoring import score_chunk
        from llmctl.runs.chunks import cut

        question = self._reader.question(self.arm)
        for chunk in cut(self._tested[start:stop], self.arm.recommender.chunk):
            ranked = score_chunk(sampler, tokens, question, chunk)
            for (_, lists), one in zip(chunk, ranked, strict=True):
                yield from _rows(lists, one.yes, one.mass)

    @cached_property
    def _tested(self) -> list[tuple[Case, CandidateList]]:
        return list(self._reader.tested(self.arm))


def _rows(lists: CandidateList, yes: Sequence[float], mass: Sequence[float]) -> Iterator[ResultRow]:
    for index, (item, label) in enumerate(zip(lists.items, lists.labels, strict=True)):
        yield ResultRow(
            problem=lists.user,
            sample=index,
            turn=1,
            text=item,
            reward=yes[index],
            tokens=0,
            is_correct=label == 1,
            answer=f"{mass[index]:.6g}",
            error=None,
        )


PROTOCOL = MsrRanking()
