"""A worker: opens a sampler, keeps it while the base model stays the same, and turns shards into parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from llmctl.errors import LlmctlError
from llmctl.jobs.plan import open_tasks, task_problems
from llmctl.jobs.protocols.base import RunShard
from llmctl.jobs.records import Done, Failed, Outcome, ResultRow, Shard, count_errors
from llmctl.jobs.results import encode_part
from llmctl.jobs.spec import JobRecipe
from llmctl.models.quiet import quiet_libraries
from llmctl.sampling import Sampler, open_sampler
from llmctl.tasks import Problem, Task
from llmctl.trust import Permissions

OpenSampler = Callable[..., Sampler]


class Worker:
    """Computes shards one after another, with one sampler open.

    Args:
        recipe: The job's recipe.
        open_model: Opens a sampler, like `open_sampler`.
        encodes_later: Leave the encoding to the recorder, which runs while the next shard is sampled.
        allowed: What the user allowed, for a worker in a process of its own; None leaves it as it is.
    """

    def __init__(
        self,
        recipe: JobRecipe,
        open_model: OpenSampler = open_sampler,
        encodes_later: bool = False,
        allowed: Permissions | None = None,
    ) -> None:
        if allowed is not None:
            allowed.adopt()
        self.recipe = recipe
        self._encodes_later = encodes_later
        self._around = ExitStack()  # contexts that stay entered while a model is open
        self._open_model = open_model
        self._tasks = open_tasks(recipe)
        self._sampler: tuple[str, Sampler] | None = None  # the base model that is loaded
        self._problems: tuple[str, list[Problem]] | None = None  # of the task that was asked last
        self._opened: dict[str, RunShard] = {}  # by protocol

    def task(self, name: str) -> Task:
        """The task of that name in the job."""
        return self._tasks[name]

    def problems(self, shard: Shard) -> Sequence[Problem]:
        """The problems of a shard."""
        if self._problems is None or self._problems[0] != shard.task:
            listed = list(task_problems(self.recipe, shard.task, self._tasks[shard.task]))
            self._problems = (shard.task, listed)
        return self._problems[1][shard.start : shard.stop]

    def compute(self, shard: Shard) -> Outcome:
        """Run and encode a shard; a failure of its model is returned as `Failed`."""
        if self.recipe.protocols[shard.protocol].definition.needs_sampler:
            return self._compute_with_sampler(shard)
        return self._compute_alone(shard)

    def _compute_with_sampler(self, shard: Shard) -> Outcome:
        try:
            sampler = self._sampler_for(shard.model)
        except Exception as error:  # whatever a model's files or an engine's start may raise
            self.close()
            return Failed(shard, one_line(error))
        start, before = time.perf_counter(), sampler.usage.snapshot()
        try:
            rows = self._run(sampler, shard)
        except LlmctlError as error:
            return Failed(shard, f"{shard}: {one_line(error)}")
        seconds, used = time.perf_counter() - start, sampler.usage.since(before)
        engine = self.recipe.protocols[shard.protocol].definition.engine or sampler.info.engine
        tokens = sum(row.tokens for row in rows) - sum(row.tokens for row in shard.earlier)
        errors = count_errors(rows)
        read = used.prompt_tokens
        return Done(shard, self._encode(shard, rows), len(rows), tokens, read, seconds, engine, errors)

    def _compute_alone(self, shard: Shard) -> Outcome:
        """Run a shard that loads the model itself, after the sampler's copy was freed."""
        self.close()
        start = time.perf_counter()
        try:
            with quiet_libraries(), _threads(self.recipe.threads):
                rows = self._run(None, shard)
        except (LlmctlError, OSError, ImportError) as error:
            return Failed(shard, f"{shard}: {one_line(error)}")
        definition = self.recipe.protocols[shard.protocol].definition
        tokens, seconds = sum(row.tokens for row in rows), time.perf_counter() - start
        new, read = (tokens, 0) if definition.samples_text else (0, tokens)
        engine = definition.engine or "own"
        errors = count_errors(rows)
        return Done(shard, self._encode(shard, rows), len(rows), new, read, seconds, engine, errors)

    def _run(self, sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
        name = shard.protocol
        if name not in self._opened:
            self._opened[name] = self.recipe.protocols[name].definition.open(self, name)
        return self._opened[name](sampler, shard)

    def _encode(self, shard: Shard, rows: Sequence[ResultRow]) -> bytes | Callable[[], bytes]:
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
            if spec.engine != "server":  # a server loads no library here that prints
                self._around.enter_context(quiet_libraries())
                self._around.enter_context(_threads(self.recipe.threads))
            found = self._open_model(spec.model, engine=spec.engine, adapter=adapter, **spec.sampler_options)
            self._sampler = (spec.base, found)
        sampler: Any = self._sampler[1]
        if sampler.info.adapter != adapter:
            sampler.use_adapter(adapter)
        return self._sampler[1]


def one_line(error: BaseException) -> str:
    """An exception in one line, with its type where llmctl did not raise it."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, LlmctlError) else f"{type(error).__name__}: {text}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use that many threads in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
