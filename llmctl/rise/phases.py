"""The phases of a RISE run: evaluate, collect, build rows, train; each does only what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.rise.chunks import ChunkedPhase, ChunkRunner, Work, read_episodes, read_evaluations
from llmctl.rise.collect import collect_episodes
from llmctl.rise.dataset import read_training_rows, training_rows, write_rows
from llmctl.rise.evaluate import evaluate_problems
from llmctl.rise.policies import Policy, Samplers, base_policy, trained_policy
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.records import Episode, Evaluation
from llmctl.rise.rollout import Player
from llmctl.runs import Run
from llmctl.sampling import Sampler
from llmctl.sampling.common import derive_seed
from llmctl.tasks import Problem, Task
from llmctl.tasks.base import BaseTask
from llmctl.training import TrainResult, TrainSettings
from llmctl.training.fit import Training, fit


@dataclass(frozen=True)
class Tasks:
    """The tasks of a recipe; one and the same where the test problems are not in a file of their own."""

    training: Task
    test: Task


class Phases:
    """What the phases of a run share: the run's folder, the recipe, the tasks, the open samplers.

    Args:
        run: Open.
        recipe: Resolved.
        tasks: The tasks of the recipe.
        quiet: Whether to leave out progress bars.
    """

    def __init__(self, run: Run, recipe: RiseRecipe, tasks: Tasks, quiet: bool = False) -> None:
        self.run, self.recipe, self.quiet = run, recipe, quiet
        self.train_task, self.test_task = tasks.training, tasks.test
        for task in (self.train_task, self.test_task):
            if isinstance(task, BaseTask):
                task.warm_up()  # otherwise the first check would load packages while its time limit runs
        self._samplers = Samplers(run, recipe)
        self._chunks = ChunkRunner(run, quiet)

    @property
    def base(self) -> Policy:
        """The base model of the run."""
        return base_policy(self.recipe)

    def policy(self, iteration: int) -> Policy:
        """The policy after that many rounds of training; 0 is the model that collection starts from.

        Raises:
            UserError: That training has not been done yet.
        """
        return trained_policy(self.run, self.recipe, iteration)

    def close(self) -> None:
        """Close the samplers and free their memory."""
        self._samplers.close()

    def evaluate(self, stage: int, policy: Policy) -> list[Evaluation]:
        """Evaluate a policy on the test problems; the records of the whole stage, in order."""
        e = self.recipe.evaluate
        problems = self.test_task.problems(self.recipe.task.test_split, e.problems, e.seed)

        def work(number: int, chunk: Sequence[Problem]) -> list[Evaluation]:
            sampler = self._samplers.policy(policy)
            player = Player(sampler, self.test_task, self.recipe.evaluation_sampling)
            seed = derive_seed(e.seed, "evaluate", number)
            return evaluate_problems(player, chunk, turns=e.turns, parallel=e.parallel, seed=seed)

        def samplers() -> dict[str, Sampler]:
            return {"usage": self._samplers.policy(policy)}

        self._run_chunks(ChunkedPhase(f"evaluate-{stage}", e.problems, e.chunk, samplers), problems, work)
        return list(read_evaluations(self.run, stage))

    def collect(self, iteration: int, policy: Policy) -> None:
        """Collect the episodes of one iteration (from 1) with the policy of the iteration before it."""
        c = self.recipe.collect

        def work(number: int, chunk: Sequence[Problem]) -> list[Episode]:
            seed = derive_seed(self.recipe.seed, "collect", iteration, number)
            player = Player(self._samplers.policy(policy), self.train_task, self.recipe.sampling)
            sampler = self._samplers.teacher()
            teacher = None if sampler is None else Player(sampler, self.train_task, self.recipe.sampling)
            return collect_episodes(player, chunk, c, seed=seed, teacher=teacher)

        def samplers() -> dict[str, Sampler]:
            found = {"usage": self._samplers.policy(policy)}
            teacher = self._samplers.teacher()
            return found if teacher is None else {**found, "teacher_usage": teacher}

        phase = ChunkedPhase(f"collect-{iteration}", c.problems, c.chunk, samplers)
        self._run_chunks(phase, self.collected_problems(iteration), work)

    def collected_problems(self, iteration: int) -> Iterator[Problem]:
        """The training problems of an iteration; each iteration has another order, or other problems."""
        seed = derive_seed(self.recipe.seed, "problems", iteration)
        return self.train_task.problems(self.recipe.task.train_split, self.recipe.collect.problems, seed)

    def build_rows(self, iteration: int) -> dict[str, Any]:
        """Write the training rows of an iteration; returns the counts for the report."""
        rows = training_rows(
            self.train_task,
            self.collected_problems(iteration),
            read_episodes(self.run, iteration),
            self.recipe,
        )
        path = self.run.path(f"data/iteration-{iteration}.jsonl")
        return write_rows(rows, path, balance=self.recipe.weights.balance)

    def train(self, iteration: int, start: Policy) -> TrainResult:
        """Train on the rows of an iteration, starting from the policy that collected them."""
        rows = read_training_rows(self.run.path(f"data/iteration-{iteration}.jsonl"))
        return self._fit(str(iteration), rows, self.recipe.train, start)

    def warm_start(self) -> TrainResult | None:
        """Plain fine-tuning on reference solutions, where the recipe asks for it.

        Raises:
            UserError: The task has no reference solutions.
        """
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
        """Fine-tune a policy into the folder `models/NAME`, where that has not been done yet."""
        self.close()  # training needs the memory of the samplers
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

    def _run_chunks(self, phase: ChunkedPhase, problems: Iterable[Problem], work: Work) -> None:
        if self._chunks.run(phase, problems, work) == 0:
            raise UserError(f"task {self.recipe.task.name} gave no problems: check its path and splits")


def get_tasks(recipe: RiseRecipe) -> Tasks:
    """The training task and the test task of a recipe.

    Raises:
        UserError: There is no such task or data.
    """
    training = recipe.task.open()
    test_path = recipe.task.test_path
    return Tasks(training, training if test_path is None else recipe.task.open(test_path))
