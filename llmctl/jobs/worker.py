"""What a worker does: open a sampler, keep it while its base stays the same, and turn shards into parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.errors import LlmctlError
from llmctl.jobs.plan import Shard, open_tasks, task_problems
from llmctl.jobs.results import Row, encode_part
from llmctl.jobs.spec import JobRecipe
from llmctl.models.quiet import quiet_libraries
from llmctl.rise.rollout import Player, rollout
from llmctl.rise.turns import Attempt, judge
from llmctl.sampling import Sampler, open_sampler
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem

if TYPE_CHECKING:
    from llmctl.jobs.ranking import Ranking
    from llmctl.msr.recommender.prompt import AnswerTokens

OpenSampler = Callable[..., Sampler]


@dataclass(frozen=True)
class Done:
    """A shard that was computed."""

    shard: Shard
    data: bytes | Callable[[], bytes]  # a Parquet file, or what makes it: for who shares the process
    rows: int
    tokens: int  # new ones
    prompt_tokens: int
    seconds: float  # sampling and checking
    engine: str  # that sampled; "search" of a curve, "scoring" of a ranking

    def encoded(self) -> bytes:
        """The Parquet file."""
        return self.data if isinstance(self.data, bytes) else self.data()


@dataclass(frozen=True)
class Failed:
    """A shard that can not be computed, in words; the rest of its model is not tried."""

    shard: Shard
    reason: str


Outcome = Done | Failed


class Worker:
    """Computes shards one after the other, with one sampler open.

    Args:
        recipe: Of the job.
        open_model: Opens a sampler, as `open_sampler`.
        encodes_later: Leave the encoding to whoever records the shard, beside the next one's sampling.
    """

    def __init__(
        self, recipe: JobRecipe, open_model: OpenSampler = open_sampler, encodes_later: bool = False
    ) -> None:
        self.recipe = recipe
        self._encodes_later = encodes_later
        self._around = ExitStack()  # what holds while a model is open
        self._open_model = open_model
        self._tasks = open_tasks(recipe)
        self._sampler: tuple[str, Sampler] | None = None  # the base that is loaded
        self._problems: tuple[str, list[Problem]] | None = None  # of the task that was asked last
        self._rankings: dict[str, Ranking] = {}  # by protocol
        self._answers: tuple[str, AnswerTokens] | None = None  # of the base that was asked last

    def compute(self, shard: Shard) -> Outcome:
        """Sample, check and encode a shard; a failure of its model comes back in words."""
        if self.recipe.protocols[shard.protocol].is_curve:
            return self._search(shard)
        try:
            sampler = self._sampler_for(shard.model)
        except Exception as error:  # whatever a model's files or an engine's start may raise
            self.close()
            return Failed(shard, one_line(error))
        start, before = time.perf_counter(), sampler.usage.snapshot()
        try:
            rows = self._ask(sampler, shard)
        except LlmctlError as error:
            return Failed(shard, f"{shard}: {one_line(error)}")
        seconds, used = time.perf_counter() - start, sampler.usage.since(before)
        data = self._encode(shard, rows)
        tokens = sum(row[5] for row in rows)
        is_ranking = self.recipe.protocols[shard.protocol].is_ranking
        engine = "scoring" if is_ranking else sampler.info.engine
        return Done(shard, data, len(rows), tokens, used.prompt_tokens, seconds, engine)

    def _search(self, shard: Shard) -> Outcome:
        """A part of a curve; it loads the model for itself, so the sampler's is let go first."""
        from llmctl.jobs.curve import search_part

        self.close()
        start = time.perf_counter()
        try:
            with quiet_libraries(), _threads(self.recipe.threads):
                rows = search_part(self.recipe, shard)
        except (LlmctlError, OSError, ImportError) as error:
            return Failed(shard, f"{shard}: {one_line(error)}")
        data = self._encode(shard, rows)
        read = sum(row[5] for row in rows)
        return Done(shard, data, len(rows), 0, read, time.perf_counter() - start, "search")

    def _encode(self, shard: Shard, rows: list[Row]) -> bytes | Callable[[], bytes]:
        encode = partial(encode_part, shard, self._adapter(shard.model), rows)
        return encode if self._encodes_later else encode()

    def _adapter(self, model: str) -> str | None:
        adapter = self.recipe.models[model].adapter
        return None if adapter is None else str(adapter)

    def close(self) -> None:
        """Free the sampler's memory."""
        if self._sampler is not None:
            self._sampler[1].close()
            self._sampler = None
        self._around.close()

    def _sampler_for(self, name: str) -> Sampler:
        spec = self.recipe.models[name]
        adapter = self._adapter(name)
        if self._sampler is None or self._sampler[0] != spec.base:
            self.close()
            if spec.engine != "server":  # which has no library that talks
                self._around.enter_context(quiet_libraries())
                self._around.enter_context(_threads(self.recipe.threads))
            found = self._open_model(spec.model, engine=spec.engine, adapter=adapter, **spec.sampler_options)
            self._sampler = (spec.base, found)
        sampler: Any = self._sampler[1]
        if sampler.info.adapter != adapter:
            sampler.use_adapter(adapter)
        return self._sampler[1]

    def _ask(self, sampler: Sampler, shard: Shard) -> list[Row]:
        spec = self.recipe.protocols[shard.protocol]
        if spec.is_ranking:
            return self._rank(sampler, shard)
        problems = self._slice(shard)
        player = Player(sampler, self._tasks[shard.task], self.recipe.protocol_sampling(shard.protocol))
        if spec.protocol == "sequential":
            episodes = rollout(player, problems, spec.n, seed=shard.seed, stop_when_correct=False)
            return [
                _row(problem, 0, turn, attempt)
                for problem, episode in zip(problems, episodes, strict=True)
                for turn, attempt in enumerate(episode, start=1)
            ]
        # the seed of a rollout's first turn, so that every protocol begins with the same sample
        replies = player.ask(problems, [[] for _ in problems], spec.samples, derive_seed(shard.seed, 0))
        return [
            _row(problem, sample, 1, judge(player.task, problem, reply))
            for problem, row in zip(problems, replies, strict=True)
            for sample, reply in enumerate(row)
        ]

    def _rank(self, sampler: Sampler, shard: Shard) -> list[Row]:
        from llmctl.jobs.ranking import Ranking
        from llmctl.msr.recommender.prompt import find_answer_tokens
        from llmctl.msr.recommender.scoring import tokenizer_of

        name, model = shard.protocol, self.recipe.models[shard.model]
        if name not in self._rankings:
            self._rankings[name] = Ranking(name, self.recipe.protocols[name])
        self._rankings[name].check_model(model.model)
        if self._answers is None or self._answers[0] != model.base:
            self._answers = (model.base, find_answer_tokens(tokenizer_of(sampler), model.model))
        return list(self._rankings[name].score(sampler, self._answers[1], shard.start, shard.stop))

    def _slice(self, shard: Shard) -> Sequence[Problem]:
        if self._problems is None or self._problems[0] != shard.task:
            listed = list(task_problems(self.recipe, shard.task, self._tasks[shard.task]))
            self._problems = (shard.task, listed)
        return self._problems[1][shard.start : shard.stop]


def one_line(error: BaseException) -> str:
    """An exception in one line, with its type where llmctl did not raise it."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, LlmctlError) else f"{type(error).__name__}: {text}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(problem: Problem, sample: int, turn: int, attempt: Attempt) -> Row:
    return (
        problem.id,
        sample,
        turn,
        attempt.text,
        attempt.reward,
        attempt.tokens,
        attempt.is_correct,
        attempt.answer,
        attempt.error,
    )
