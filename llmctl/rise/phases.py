"""The phases of a RISE run; each does only what its journal lacks.

A unit of work is a chunk of problems: its records and its token counts are one journal line, written
when the chunk is done. A chunk's seeds depend on its number alone, so a chunk that is done again after a
kill comes out as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.rise.collect import collect_episodes
from llmctl.rise.dataset import read_training_rows, training_rows, write_rows
from llmctl.rise.estimate import FINISHED
from llmctl.rise.evaluate import evaluate_problems
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.rollout import Player
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Sampler, open_sampler
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem, Task, get_task
from llmctl.tasks.base import BaseTask
from llmctl.training import TrainResult, TrainSettings
from llmctl.training.fit import Training, fit

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Tasks:
    """The tasks of a recipe; one and the same where the test problems are not in a file of their own."""

    training: Task
    test: Task


@dataclass(frozen=True)
class Policy:
    """The model at some stage of a run."""

    model: str
    adapter: str | None = None


@dataclass(frozen=True)
class Phase:
    """A phase that samples, chunk by chunk."""

    name: str  # of its journal
    total: int  # problems, as the recipe has it; the task may have fewer
    size: int  # problems of a chunk
    policy: Policy
    has_teacher: bool = False


class Phases:
    """Everything that a run's phases share: the run's folder, the recipe, one open sampler.

    Args:
        run: Open.
        recipe: Resolved.
        tasks: The tasks of the recipe.
        quiet: No progress.
    """

    def __init__(self, run: Run, recipe: RiseRecipe, tasks: Tasks, quiet: bool = False) -> None:
        self.run, self.recipe, self.quiet = run, recipe, quiet
        self.train_task, self.test_task = tasks.training, tasks.test
        for task in (self.train_task, self.test_task):
            if isinstance(task, BaseTask):
                task.warm_up()  # else the first check would load packages while its time limit runs
        self._open: tuple[Policy, Sampler] | None = None
        self._teacher: Sampler | None = None

    # What to work with

    @property
    def base(self) -> Policy:
        """The model as it came."""
        return Policy(self.recipe.model, None if self.recipe.adapter is None else str(self.recipe.adapter))

    def policy(self, iteration: int) -> Policy:
        """The policy after that many rounds of training; 0 is the model that collection starts from.

        Raises:
            UserError: That training has not been done yet.
        """
        if iteration == 0:
            return self.base if self.recipe.warm_start is None else self._trained("warm")
        return self._trained(str(iteration))

    def _trained(self, name: str) -> Policy:
        folder = self.run.folder / "models" / name
        if not (folder / "train_result.json").is_file():
            raise UserError(
                f"{folder} is not trained yet: run `llmctl rise train` or `llmctl rise run` first"
            )
        is_adapter = (folder / "adapter_config.json").is_file()
        return Policy(self.recipe.model, str(folder)) if is_adapter else Policy(str(folder))

    def sampler(self, policy: Policy) -> Sampler:
        """A sampler on a policy; the one that was open before is closed."""
        settings = self.recipe.sampler
        if self._open is not None and self._open[0] == policy:
            return self._open[1]
        self.close()
        found = open_sampler(policy.model, engine=settings.engine, adapter=policy.adapter, **settings.options)
        self._open = (policy, found)
        self.run.note(engine={"name": found.info.engine, **found.info.details})
        return found

    def close(self) -> None:
        """Free the samplers' memory."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        if self._teacher is not None:
            self._teacher.close()
            self._teacher = None

    # Evaluation

    def evaluate(self, stage: str, policy: Policy) -> Records:
        """Evaluate a policy on the test problems; records of the whole stage, in order."""
        e = self.recipe.evaluate
        problems = self.test_task.problems(self.recipe.task.test_split, e.problems, e.seed)

        def work(number: int, chunk: Sequence[Problem]) -> Records:
            player = Player(self.sampler(policy), self.test_task, self.recipe.evaluation_sampling)
            seed = derive_seed(e.seed, "evaluate", number)
            return evaluate_problems(player, chunk, turns=e.turns, parallel=e.parallel, seed=seed)

        self._chunks(Phase(f"evaluate-{stage}", e.problems, e.chunk, policy), problems, work)
        return list(self.records(f"evaluate-{stage}"))

    # Collection

    def collect(self, iteration: int, policy: Policy) -> None:
        """Collect the episodes of one iteration (from 1) with the policy before it."""
        c = self.recipe.collect

        def work(number: int, chunk: Sequence[Problem]) -> Records:
            seed = derive_seed(self.recipe.seed, "collect", iteration, number)
            player = Player(self.sampler(policy), self.train_task, self.recipe.sampling)
            teacher = self.teacher()
            asked = None if teacher is None else Player(teacher, self.train_task, self.recipe.sampling)
            return collect_episodes(player, chunk, c, seed=seed, teacher=asked)

        phase = Phase(f"collect-{iteration}", c.problems, c.chunk, policy, has_teacher=True)
        self._chunks(phase, self.collected_problems(iteration), work)

    def teacher(self) -> Sampler | None:
        """The teacher's sampler, None where the recipe has no teacher."""
        t = self.recipe.collect.teacher
        if t is not None and self._teacher is None:
            adapter = None if t.adapter is None else str(t.adapter)
            options = t.sampler.options
            self._teacher = open_sampler(t.model, engine=t.sampler.engine, adapter=adapter, **options)
        return self._teacher

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
        return self._fit("warm", rows, warm.train, self.base)

    def _fit(
        self, name: str, rows: Sequence[Mapping[str, Any]], settings: TrainSettings, start: Policy
    ) -> TrainResult:
        self.close()
        training = Training(
            name=name,
            model=start.model,
            rows=rows,
            settings=settings,
            output=f"models/{name}",
            init_adapter=start.adapter,
            launch=self.recipe.launch,
        )
        label = "warm start" if name == "warm" else f"train {name}"
        return fit(self.run, training, label=label, quiet=self.quiet)

    # Chunks and their journals

    def records(self, journal: str) -> Iterator[dict[str, Any]]:
        """All records of a phase, streamed."""
        for line in self.run.journal(journal):
            yield from line["records"]

    def _chunks(
        self,
        phase: Phase,
        problems: Iterable[Problem],
        work: Callable[[int, Sequence[Problem]], Records],
    ) -> None:
        book, finished = self.run.journal(phase.name), self.run.journal(FINISHED)
        if phase.name in finished:
            return
        seen = 0
        done = min(phase.total, len(book) * phase.size)
        label = phase.name.replace("-", " ")
        with progress(phase.total, label, "problems", done=done, quiet=self.quiet) as bar:
            for number, chunk in enumerate(cut(problems, phase.size)):
                seen += len(chunk)
                if (key := f"chunk-{number}") in book:
                    continue
                self._do_chunk(phase, key, partial(work, number, chunk))
                bar.advance(len(chunk))
        if seen == 0:
            raise UserError(f"task {self.recipe.task.name} gave no problems: check its path and splits")
        finished.append(phase.name, {"problems": seen})

    def _do_chunk(self, phase: Phase, key: str, work: Callable[[], Records]) -> None:
        """One line with records and token counts, then one with the seconds, loading of models aside."""
        samplers = {"usage": self.sampler(phase.policy)}
        if phase.has_teacher and (teacher := self.teacher()) is not None:
            samplers["teacher_usage"] = teacher
        before = {name: sampler.usage.snapshot() for name, sampler in samplers.items()}
        with timed(self.run, f"{phase.name}/{key}"):
            records = work()
            usage = {name: asdict(sampler.usage.since(before[name])) for name, sampler in samplers.items()}
            self.run.journal(phase.name).append(key, {**usage, "records": records})


def get_tasks(recipe: RiseRecipe) -> Tasks:
    """The training task and the test task of a recipe.

    Raises:
        UserError: No such task or data.
    """
    t = recipe.task
    training = get_task(t.name, **_path(t.path), **t.options)
    test = training if t.test_path is None else get_task(t.name, **_path(t.test_path), **t.options)
    return Tasks(training, test)


def _path(path: Path | None) -> dict[str, Any]:
    return {} if path is None else {"path": path}
