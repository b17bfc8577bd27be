"""The recipe's own checks, the estimate of its work, and the recipes that come along."""

import pytest

from llmctl.errors import UserError
from llmctl.rise.estimate import estimate_work
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import load_recipe
from llmctl.runs.recipe import list_recipes, parse_recipe


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"collect": {"sample": 3}}, "unknown key 'collect.sample': did you mean 'collect.samples'"),
        (
            {"collect": {"samples": 0}},
            "collect.samples is 0 .int., but it should be greater than or equal to 1",
        ),
        ({"collect": {"improve": []}}, "collect.improve is empty"),
        ({"collect": {"improve": ["oracle"]}}, "collect.improve.0 is 'oracle'"),
        ({"evaluate": {"turns": 0}}, "evaluate.turns is 0"),
        ({"weights": {"keep": "good"}}, "weights.keep is 'good' .str., but it should be 'all', 'better'"),
        ({"train": {"adapter": "dora"}}, "train.adapter is 'dora'"),
        ({"sampling": {"window": 0}}, "sampling.window is 0"),
        ({"iterations": 0, "warm_start": {}}, "warm_start is given and iterations is 0"),
    ],
)
def test_a_mistake_is_one_line(content, match):
    with pytest.raises(UserError, match=match) as caught:
        parse_recipe(RiseRecipe, content, "r.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("rise/")])
def test_every_recipe_that_comes_along_is_valid(name):
    assert estimate_work(load_recipe(RiseRecipe, name))["evaluations"] >= 2


def test_the_estimate_counts_samples_and_tokens():
    recipe = RiseRecipe(
        iterations=3,
        sampling={"max_tokens": 10},
        collect={"problems": 7, "turns": 2, "samples": 4, "improve": ["teacher"], "teacher": {"model": "t"}},
        evaluate={
            "problems": 5,
            "turns": 3,
            "parallel": 4,
            "each_iteration": True,
            "sampling": {"max_tokens": 100},
        },
    )
    work = estimate_work(recipe)
    assert work["evaluations"] == 4  # before, and after each of three
    assert work["samples per evaluation, at most"] == 5 * (4 + 2)
    assert work["samples per collection, at most"] == 7 * 2 * (4 + 1)
    assert work["new tokens sampled, at most"] == 4 * 30 * 100 + 3 * 70 * 10
    assert estimate_work(RiseRecipe(iterations=0))["evaluations"] == 1
