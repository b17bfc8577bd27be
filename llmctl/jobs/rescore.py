"""Check the stored replies of a job again with a changed task, without sampling.

The result is a finished job in a folder of its own: the same replies with new rewards, answers and metrics.
What a model replied over several turns depended on the old checks, and stays as it was.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.attempts import SHARDS, ShardLine, latest_lines
from llmctl.jobs.plan import count_problems, open_tasks, plan_shards, task_problems
from llmctl.jobs.recorder import Recorder
from llmctl.jobs.records import Done, ResultRow, Shard, count_errors
from llmctl.jobs.results import RESULTS, encode_part, read_groups, read_part_rows
from llmctl.jobs.run import JobResult, finish_job
from llmctl.jobs.show import SUMMARY, read_job, read_summary
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Run, read_journal
from llmctl.runs.files import read_json
from llmctl.runs.recipe import build_recipe, differences, recipe_content
from llmctl.tasks import Problem, Task

CHANGEABLE = ("tasks", "prices", "fail_on_error", "workers")


@dataclass(frozen=True)
class Rescored:
    """A job whose stored replies were checked again."""

    folder: Path
    differences: Sequence[str]
    """What changed in the recipe, one line each."""
    changed: int
    """Samples that are right now and were wrong before, or the other way round."""
    result: JobResult


def rescore_job(folder: Path, sets: Sequence[str] = (), output: Path | None = None) -> Rescored:
    """Check the replies of a finished job again.

    Args:
        folder: The job.
        sets: Changes of its recipe, "tasks.NAME.options.x=1"; only of its tasks.
        output: A new folder; None is the job's with "-rescored" after its name.

    Raises:
        UserError: The job is not finished, something other than its tasks is changed, a changed task asks
            other problems, or the new folder holds another run.
    """
    old = read_job(folder)
    read_summary(folder)  # refuses a job that is not finished
    content = {name: value for name, value in recipe_content(old).items() if name != "kind"}
    recipe = build_recipe(JobRecipe, content, f"{folder}/recipe.yaml", list(sets))
    told = differences(recipe_content(old), recipe_content(recipe), JobRecipe.free_keys)
    _check_changes(folder, old, recipe)
    target = output or folder.with_name(f"{folder.name}-rescored")
    if target.resolve() == folder.resolve():
        raise UserError(f"{target} is the job itself: give another folder, so that its results stay")
    lines = latest_lines(read_journal(folder / "journal" / f"{SHARDS}.jsonl"))
    notes = read_json(folder / "manifest.json").get("notes", {})
    weights = {name: notes.get(f"weights of {name}") for name in recipe.models}
    counts = count_problems(recipe)
    plan = plan_shards(recipe, counts, weights)
    by_place = {tuple(line.shard.place.values()): line for line in lines.values()}
    failed = dict(read_summary(folder)["failed"])
    _check_places(folder, [shard for shard in plan if shard.model not in failed], by_place)
    scorer, changed = _Scorer(recipe), 0
    scorer.check_problems(folder / RESULTS)
    with Run.open(target, recipe, "eval rescore") as run:
        run.claim("parts", f"journal/{SHARDS}.jsonl", "results.parquet", SUMMARY, "report.md", "report.html")
        problems = {f"problems of {task}": digest for task, (_, digest) in counts.items()}
        run.pin(**problems, **{f"weights of {model}": found for model, found in weights.items()})
        result = JobResult(len(plan), 0, 0, failed=failed)
        done = run.journal(SHARDS)
        with Recorder(run) as recorder:
            for shard in plan:
                line = by_place.get(tuple(shard.place.values()))
                if line is None or shard.key in done:
                    continue
                before = read_part_rows(line.part(folder))
                after = [scorer.score(shard, row) for row in before]
                changed += sum(a.is_correct != b.is_correct for a, b in zip(after, before, strict=True))
                recorder.put(_done(recipe, shard, line, after))
                result.computed += 1
        result.tokens = sum(line.tokens for line in lines.values())
        run.note(rescored_from=str(folder))
        finish_job(run, recipe, plan, result)
    return Rescored(target, told, changed, result)


class _Scorer:
    """Checks rows with the tasks of a recipe."""

    def __init__(self, recipe: JobRecipe) -> None:
        self._recipe = recipe
        self._tasks: Mapping[str, Task] = open_tasks(recipe)
        self._problems: dict[str, dict[str, Problem]] = {}

    def score(self, shard: Shard, row: ResultRow) -> ResultRow:
        """The row as the task judges it now; rows without a reply stay as they are."""
        if shard.task not in self._tasks or row.error is not None:
            return row
        problem = self._problem(shard.task, row.problem)
        feedback = self._tasks[shard.task].check(problem, row.text)
        return row._replace(reward=feedback.reward, is_correct=feedback.is_correct, answer=feedback.answer)

    def check_problems(self, results: Path) -> None:
        """Refuse stored problems that the tasks no longer have, before there is a new folder."""
        for table in read_groups(results, ("task", "problem")):
            task = table["task"][0].as_py()
            if task in self._tasks:
                for key in table["problem"].unique().to_pylist():
                    self._problem(task, key)

    def _problem(self, task: str, key: str) -> Problem:
        if task not in self._problems:
            listed = task_problems(self._recipe, task, self._tasks[task])
            self._problems[task] = {problem.id: problem for problem in listed}
        if key not in self._problems[task]:
            raise UserError(
                f"task {task} no longer has the problem {key!r} that was asked: a checker can be changed "
                "without sampling, but its problems cannot; run the job anew"
            )
        return self._problems[task][key]


def _check_places(folder: Path, plan: Sequence[Shard], known: Container[tuple[Any, ...]]) -> None:
    """Refuse a plan that is cut otherwise than the one whose replies are stored."""
    for shard in plan:
        if tuple(shard.place.values()) not in known:
            raise UserError(
                f"{folder} has no replies of {shard}: the changed task has another number of problems, which "
                "needs sampling; run the job anew"
            )


def _done(recipe: JobRecipe, shard: Shard, line: ShardLine, rows: Sequence[ResultRow]) -> Done:
    adapter = recipe.models[shard.model].adapter
    encode = partial(encode_part, shard, None if adapter is None else str(adapter), rows)
    spent = (line.tokens, line.prompt_tokens, line.seconds, line.engine)
    return Done(shard, encode, len(rows), *spent, count_errors(rows))


def _check_changes(folder: Path, old: JobRecipe, new: JobRecipe) -> None:
    """Refuse changes of anything that the replies depend on."""
    before, after = (_without(recipe_content(recipe)) for recipe in (old, new))
    changed = differences(before, after, JobRecipe.free_keys)
    if list(old.tasks) != list(new.tasks):
        changed = [*changed, "the names of the tasks"]
    if changed:
        raise UserError(
            f"the replies in {folder} depend on what would change ({', '.join(changed)}): only tasks can be "
            "changed without sampling; run the job anew"
        )


def _without(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in CHANGEABLE}
