"""The phases of a RISE run; each does only what its journal lacks.

A unit of work is a chunk of problems: its records and its token counts are one journal line, written
when the chunk is done. A chunk's seeds depend on its number alone, so a chunk that is done again after a
kill comes out as it would have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.rise.collect import collect_episodes
from llmctl.rise.dataset import read_training_rows, training_rows, write_rows
from llmctl.rise.evaluate import evaluate_problems
from llmctl.rise.recipe import EngineSettings, RiseRecipe
from llmctl.rise.rollout import Player
from llmctl.runs import Journal, Run, progress
from llmctl.sampling import Sampler, open_sampler
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem, Task, get_task
from llmctl.tasks.base import BaseTask
from llmctl.training import TrainResult, TrainSettings, train

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Policy:
    """The model at some stage of a run."""

    model: str
    adapter: str | None = None


class Phases:
    """Everything that a run's phases share: the run's folder, the recipe, one open sampler.

    Args:
        run: Open.
        recipe: Resolved.
        quiet: No progress.

    Raises:
        UserError: No such task, or an adapter to begin with and full fine-tuning.
    """

    def __init__(self, run: Run, recipe: RiseRecipe, quiet: bool = False) -> None:
        self.run, self.recipe, self.quiet = run, recipe, quiet
        self.train_task, self.test_task = tasks_of(recipe)
        self._open: tuple[Policy, EngineSettings, Sampler] | None = None
        self.engine: Mapping[str, Any] = {}
        if recipe.adapter is not None and recipe.train.adapter == "full":
            raise UserError(
                "adapter is given and train.adapter is full, but full fine-tuning starts from whole weights: "
                "merge the adapter first, or set train.adapter=lora"
            )

    # What to work with

    def policy(self, iteration: int) -> Policy:
        """The policy after that many rounds of training; 0 is the model that collection starts from.

        Raises:
            UserError: That training has not been done yet.
        """
        base = Policy(self.recipe.model, None if self.recipe.adapter is None else str(self.recipe.adapter))
        if iteration == 0:
            return base if self.recipe.warm_start is None else self._trained("warm", base)
        return self._trained(str(iteration), base)

    def _trained(self, name: str, base: Policy) -> Policy:
        folder = self.run.folder / "models" / name
        if not (folder / "train_result.json").is_file():
            raise UserError(
                f"{folder} is not trained yet: run `llmctl rise train` or `llmctl rise run` first"
            )
        is_adapter = (folder / "adapter_config.json").is_file()
        return Policy(base.model, str(folder)) if is_adapter else Policy(str(folder))

    def sampler(self, policy: Policy, settings: EngineSettings | None = None) -> Sampler:
        """A sampler on a policy; the one that was open before is closed."""
        settings = settings or self.recipe.sampler
        if self._open is not None and self._open[:2] == (policy, settings):
            return self._open[2]
        self.close()
        found = open_sampler(policy.model, engine=settings.engine, adapter=policy.adapter, **settings.options)
        self._open = (policy, settings, found)
        self.engine = asdict(found.info)
        return found

    def close(self) -> None:
        """Free the sampler's memory."""
        if self._open is not None:
            self._open[2].close()
            self._open = None

    # Evaluation

    def evaluate(self, stage: str, policy: Policy) -> Records:
        """Evaluate a policy on the test problems; records of the whole stage, in order."""
        e = self.recipe.evaluate
        problems = self.test_task.problems(self.recipe.task.test_split, e.problems, e.seed)

        def work(number: int, chunk: Sequence[Problem]) -> tuple[Records, Sampler]:
            sampler = self.sampler(policy)
            player = Player(sampler, self.test_task, self.recipe.evaluation_sampling)
            seed = derive_seed(e.seed, "evaluate", number)
            found = evaluate_problems(player, chunk, turns=e.turns, parallel=e.parallel, seed=seed)
            return found, sampler

        self._chunks(f"evaluate-{stage}", problems, e.problems, e.chunk, work)
        return list(self.records(f"evaluate-{stage}"))

    # Collection

    def collect(self, iteration: int, policy: Policy) -> None:
        """Collect the episodes of one iteration (from 1) with the policy before it."""
        c = self.recipe.collect
        teacher = self._teacher()

        def work(number: int, chunk: Sequence[Problem]) -> tuple[Records, Sampler]:
            sampler = self.sampler(policy)
            seed = derive_seed(self.recipe.seed, "collect", iteration, number)
            player = Player(sampler, self.train_task, self.recipe.sampling)
            return collect_episodes(player, chunk, c, seed=seed, teacher=teacher), sampler

        try:
            problems = self.collected_problems(iteration)
            self._chunks(f"collect-{iteration}", problems, c.problems, c.chunk, work)
        finally:
            if teacher is not None:
                teacher.sampler.close()

    def _teacher(self) -> Player | None:
        t = self.recipe.collect.teacher
        if t is None:
            return None
        adapter = None if t.adapter is None else str(t.adapter)
        sampler = open_sampler(t.model, engine=t.sampler.engine, adapter=adapter, **t.sampler.options)
        return Player(sampler, self.train_task, self.recipe.sampling)

    def collected_problems(self, iteration: int) -> Iterator[Problem]:
        """The training problems of an iteration; another order, or other problems, in each."""
        seed = derive_seed(self.recipe.seed, "problems", iteration)
        return self.train_task.problems(self.recipe.task.train_split, self.recipe.collect.problems, seed)

    # Training

    def build_rows(self, iteration: int) -> dict[str, Any]:
        """Write the training rows of an iteration; counts for the report."""
        rows = training_rows(
            self.train_task,
            self.collected_problems(iteration),
            self.records(f"collect-{iteration}"),
            self.recipe,
        )
        return write_rows(rows, self.run.path(f"data/iteration-{iteration}.jsonl"))

    def train(self, iteration: int, start: Policy) -> TrainResult:
        """Train on the rows of an iteration, from the policy that collected them."""
        rows = read_training_rows(self.run.path(f"data/iteration-{iteration}.jsonl"))
        return self._fit(str(iteration), rows, self.recipe.train, start)

    def warm_start(self) -> TrainResult | None:
        """Plain fine-tuning on reference solutions, where the recipe asks for it."""
        warm = self.recipe.warm_start
        if warm is None:
            return None
        seed = derive_seed(self.recipe.seed, "problems", 0)
        rows = [
            {"messages": [*self.train_task.conversation(p), {"role": "assistant", "content": p.solution}]}
            for p in self.train_task.problems(self.recipe.task.train_split, warm.problems, seed)
            if p.solution is not None
        ]
        if not rows:
            raise UserError(
                f"warm_start needs reference solutions, but task {self.recipe.task.name} has none: drop it"
            )
        base = Policy(self.recipe.model, None if self.recipe.adapter is None else str(self.recipe.adapter))
        return self._fit("warm", rows, warm.train, base)

    def _fit(
        self, name: str, rows: Sequence[Mapping[str, Any]], settings: TrainSettings, start: Policy
    ) -> TrainResult:
        self.close()
        output = self.run.path(f"models/{name}")
        label = "warm start" if name == "warm" else f"train {name}"
        with progress(None, label, "steps", quiet=self.quiet) as bar:

            def report(step: int, total: int, loss: float) -> None:
                bar.total = total
                bar.advance(step - bar.done, note=f"loss {loss:.3f}")

            if self.recipe.launch is None:
                return train(start.model, rows, settings, output, init_adapter=start.adapter, progress=report)
            return self._launch(name, rows, settings, start, report)

    def _launch(
        self,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        settings: TrainSettings,
        start: Policy,
        report: Callable[[int, int, float], None],
    ) -> TrainResult:
        from llmctl.training import launch, write_job

        job = write_job(
            self.run.path(f"jobs/{name}.json"),
            rows=rows,
            model=start.model,
            settings=settings,
            output=self.run.path(f"models/{name}"),
            init_adapter=start.adapter,
        )
        return launch(job, self.recipe.launch, progress=report)

    # Chunks and their journals

    def records(self, journal: str) -> Iterator[dict[str, Any]]:
        """All records of a phase, streamed."""
        for line in self.run.journal(journal):
            yield from line["records"]

    def _chunks(
        self,
        journal: str,
        problems: Iterable[Problem],
        total: int,
        size: int,
        work: Callable[[int, Sequence[Problem]], tuple[Records, Sampler]],
    ) -> None:
        book, clock = self.run.journal(journal), self.run.journal("timing")
        seen = 0
        done = min(total, len(book) * size)
        with progress(total, journal.replace("-", " "), "problems", done=done, quiet=self.quiet) as bar:
            for number, chunk in enumerate(_cut(problems, size)):
                seen += len(chunk)
                if (key := f"chunk-{number}") in book:
                    continue
                self._do_chunk(book, clock, (journal, key), partial(work, number, chunk))
                bar.advance(len(chunk))
        if seen == 0:
            raise UserError(f"task {self.recipe.task.name} gave no problems: check its path and splits")

    def _do_chunk(
        self,
        book: Journal,
        clock: Journal,
        name: tuple[str, str],
        work: Callable[[], tuple[Records, Sampler]],
    ) -> None:
        journal, key = name
        before = self._open[2].usage.snapshot() if self._open is not None else None
        began = time.perf_counter()
        records, sampler = work()
        usage = sampler.usage.snapshot() if before is None else sampler.usage.since(before)
        book.append(key, {"usage": asdict(usage), "records": records})
        if (unit := f"{journal}/{key}") not in clock:
            clock.append(unit, {"seconds": round(time.perf_counter() - began, 3)})


def tasks_of(recipe: RiseRecipe) -> tuple[Task, Task]:
    """The training task and the test task of a recipe, ready to check.

    Raises:
        UserError: No such task or data.
    """
    t = recipe.task
    training = get_task(t.name, **_path(t.path), **t.options)
    test = training if t.test_path is None else get_task(t.name, **_path(t.test_path), **t.options)
    for task in (training, test):
        if isinstance(task, BaseTask):
            task.warm_up()
    return training, test


def _path(path: Path | None) -> dict[str, Any]:
    return {} if path is None else {"path": path}


def _cut(problems: Iterable[Problem], size: int) -> Iterator[list[Problem]]:
    stream = iter(problems)
    while chunk := list(islice(stream, size)):
        yield chunk
