"""Phases do only what is missing, and draw other problems for each iteration."""

import pytest

from llmctl.errors import UserError
from llmctl.rise.phases import Phases, Tasks, get_tasks
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.sampling.scripted import ScriptedSampler

from .helpers import TASK, Letters, number_of


class Unsolved(Letters):
    """The same task without reference solutions."""

    def problems(self, split="train", limit=None, seed=0):
        from dataclasses import replace

        return (replace(problem, solution=None) for problem in super().problems(split, limit, seed))


def answer(conversation, seed):
    return "abcdefghijklmnopqrstuvwxyz"[number_of(conversation)]


@pytest.fixture
def opened(monkeypatch):
    """Names of the models that were opened, in order; each answers every problem right."""
    models = []

    def open_sampler(model, **options):
        models.append(model)
        return ScriptedSampler(answer, model)

    monkeypatch.setattr("llmctl.rise.policies.open_sampler", open_sampler)
    return models


def phases_of(folder, task=TASK, **changes):
    content = {
        "model": "m",
        "collect": {"problems": 5, "turns": 2, "samples": 2, "chunk": 2},
        "evaluate": {"problems": 5, "turns": 2, "parallel": 2, "chunk": 2},
    }
    recipe = RiseRecipe.model_validate(content | changes)
    return Phases(Run.open(folder, recipe, "rise run"), recipe, Tasks(task, task), quiet=True)


def test_a_finished_evaluation_opens_no_sampler(tmp_path, opened):
    phases = phases_of(tmp_path / "run")
    with phases.run:
        first = phases.evaluate(0, phases.base)
        phases.close()
        again = phases.evaluate(0, phases.base)
    assert opened == ["m"] and again == first
    assert [record.problem for record in first] == [f"test:{n}" for n in range(5)]


def test_rows_come_from_the_collected_episodes(tmp_path, opened):
    phases = phases_of(tmp_path / "run")
    with phases.run:
        phases.collect(1, phases.base)
        counts = phases.build_rows(1)
        phases.close()
    lines = (tmp_path / "run/data/iteration-1.jsonl").read_text().splitlines()
    assert len(lines) == 5 and "rows" in counts


def test_a_task_without_problems_is_refused(tmp_path, opened):
    class Empty(Letters):
        def problems(self, split="train", limit=None, seed=0):
            return iter(())

    phases = phases_of(tmp_path / "run", Empty())
    with phases.run, pytest.raises(UserError, match="gave no problems: check its path and splits"):
        phases.evaluate(0, phases.base)


def test_a_warm_start_needs_reference_solutions(tmp_path, opened):
    phases = phases_of(tmp_path / "run", Unsolved(), warm_start={"problems": 3})
    with phases.run, pytest.raises(UserError, match="warm_start needs reference solutions, but task sort"):
        phases.warm_start()


def test_without_a_warm_start_in_the_recipe_nothing_is_trained(tmp_path, opened):
    phases = phases_of(tmp_path / "run")
    with phases.run:
        assert phases.warm_start() is None
    assert not (tmp_path / "run/models").exists()


def test_test_problems_of_another_file_are_a_task_of_their_own(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    files = {"path": str(tmp_path / "train.jsonl"), "test_path": str(tmp_path / "test.jsonl")}
    apart = get_tasks(RiseRecipe.model_validate({"task": {"name": "jsonl", **files}}))
    assert apart.training is not apart.test
    same = get_tasks(RiseRecipe())
    assert same.training is same.test
