import pytest

from llmctl.errors import UserError
from llmctl.jobs.run import Engine, check_job
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import build_recipe

from .helpers import job


def test_names_fill_in_what_is_left_out():
    recipe = build_recipe(
        JobRecipe, {"models": ["m"], "tasks": ["sort"], "protocols": ["single"]}, "job.yaml"
    )
    assert recipe.models["m"].model == "m"
    assert recipe.tasks["sort"].name == "sort"
    assert recipe.protocols["single"].protocol == "single"


def test_set_reaches_a_model_by_its_name():
    content = {"models": {"m": None}, "tasks": ["sort"], "protocols": ["single"]}
    recipe = build_recipe(JobRecipe, content, "job.yaml", ["models.m.adapter=runs/a", "models.n.model=m"])
    assert str(recipe.models["m"].adapter) == "runs/a"
    assert recipe.models["n"].adapter is None
    assert recipe.models["m"].base == recipe.models["n"].base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ["sequentail"]}, "no protocol 'sequentail'; the nearest is 'sequential'"),
        ({"models": {"m": {"adaptr": "x"}}}, "unknown key 'models.m.adaptr'.*adapter"),
        ({"seeds": [1, 1]}, "each may appear once"),
        ({"models": {}}, "models"),
        ({"shard_size": 0}, "shard_size is 0"),
    ],
)
def test_mistakes_are_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        job(**changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(UserError, match="no task 'srot'; the nearest is 'sort'"):
        check_job(job(tasks=["srot"]))


def test_an_unknown_option_of_a_sampler_is_told_before_a_folder_is_made():
    models = {"m": {"engine": "transformers", "options": {"max_bach": 3}}}
    with pytest.raises(UserError, match="no option 'max_bach': did you mean 'max_batch'"):
        check_job(job(models=models))


def test_the_smaller_limit_counts():
    tasks = {"a": {"name": "sort", "limit": 3}, "b": {"name": "sort"}, "c": {"name": "sort", "limit": 30}}
    recipe = job(tasks=tasks)
    assert [recipe.problem_limit(name) for name in "abc"] == [3, 10, 10]


def test_engines_refuse_options_of_others():
    with pytest.raises(UserError, match="engine local is one process"):
        Engine("local", workers=2)
    with pytest.raises(UserError, match="is a Ray cluster's, but engine is processes"):
        Engine("processes", address="a:1")
