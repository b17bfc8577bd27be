"""A ranking of an msr run's candidates as shards of a job: models are asked what that run's own are asked.

A row is a candidate of a test user: `problem` is the user, `sample` the place in the frozen list, `text` the
item, `reward` P(yes), `is_correct` whether it is the item that was chosen next, and `answer` the share of all
probability that is on yes or no. Users are the independent units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.jobs.plan import ranked_name
from llmctl.jobs.results import Row
from llmctl.jobs.spec import JobRecipe, ProtocolSpec
from llmctl.sampling import Sampler
from llmctl.sampling.open import choose_engine

if TYPE_CHECKING:
    from llmctl.msr.recommender.prompt import AnswerTokens, Case
    from llmctl.msr.types import CandidateList


class Ranking:
    """The test users of an msr run, as one of its arms asks about them.

    Args:
        protocol: The name of an msr_ranking in the job.
        spec: Its settings.

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
        """How many."""
        return self._reader.prepared.users("test")

    @property
    def candidate_hash(self) -> str:
        """Of the data and the lists; figures on lists of another hash do not compare."""
        return self._reader.prepared.candidate_hash

    @property
    def chance(self) -> dict[str, float]:
        """Each metric of a recommender that guesses."""
        return dict(self._reader.prepared.facts["chance"])

    def digest(self) -> str:
        """A hash of all that is asked."""
        return self._reader.digest(self.arm)

    def check_model(self, model: str) -> None:
        """Refuse a model that can not take in what the arm shows.

        Raises:
            UserError: The arm shows pictures, and the model reads none.
        """
        from llmctl.models.description import reads_images

        if self.arm.recommender.variant == "image" and not reads_images(model):
            raise UserError(
                f"arm {self.arm.name} shows pictures, but {model} takes none: rank with a vision-language "
                "model, or take another arm"
            )

    def score(self, sampler: Sampler, tokens: AnswerTokens, start: int, stop: int) -> Iterator[Row]:
        """The rows of users [start, stop), scored as `llmctl msr eval` scores them.

        Raises:
            UserError: A question does not fit into the model's context.
        """
        from llmctl.msr.recommender.scoring import score_chunk
        from llmctl.msr.summaries.items import cut

        question = self._reader.question(self.arm)
        for chunk in cut(self._tested[start:stop], self.arm.recommender.chunk):
            ranked = score_chunk(sampler, tokens, question, chunk)
            for (_, lists), one in zip(chunk, ranked, strict=True):
                yield from _rows(lists, one.yes, one.mass)

    @cached_property
    def _tested(self) -> list[tuple[Case, CandidateList]]:
        return list(self._reader.tested(self.arm))


def count_users(recipe: JobRecipe) -> dict[str, tuple[int, str]]:
    """How many users each ranking of a job has, and a hash of what is asked of them.

    Raises:
        UserError: As `Ranking`; or a model's engine shows no vocabulary.
    """
    from llmctl.models import resolve

    found = {}
    for name, spec in recipe.rankings.items():
        for model, entry in recipe.models.items():
            if choose_engine(entry.engine)[0] == "server":
                raise UserError(
                    f"models.{model}.engine is server, but {name} ranks by the probability of yes and no, "
                    "and a server shows no vocabulary to read them from: set it to transformers or vllm"
                )
        ranking = Ranking(name, spec)
        resolve(ranking.arm.recommender.model)  # its tokenizer says how much of a history is shown
        users = ranking.users if recipe.limit is None else min(recipe.limit, ranking.users)
        found[ranked_name(name)] = (users, ranking.digest())
    return found


def describe_rankings(recipe: JobRecipe) -> dict[str, dict[str, Any]]:
    """What the figures of each ranking stand beside: run, arm, hash of the lists, level by chance."""
    found = {}
    for name, spec in recipe.rankings.items():
        ranking = Ranking(name, spec)
        found[name] = {
            "run": str(spec.run),
            "arm": ranking.arm.name,
            "candidate_hash": ranking.candidate_hash,
            "chance": ranking.chance,
        }
    return found


def _rows(lists: CandidateList, yes: Sequence[float], mass: Sequence[float]) -> Iterator[Row]:
    for place, (item, label) in enumerate(zip(lists.items, lists.labels, strict=True)):
        yield lists.user, place, 1, item, yes[place], 0, label == 1, f"{mass[place]:.6g}", None
