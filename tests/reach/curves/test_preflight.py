import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.preflight import check_curve, estimate_work
from llmctl.reach.curves.recipe import CurveRecipe


def recipe_for(tiny_model, **content):
    return CurveRecipe.model_validate({"model": str(tiny_model), **content})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"beside": ["nothing"]}, "no published curve"),
        ({"adapter": "/nowhere"}, "nowhere"),
        ({"controls": {"sample": 10**6}}, "controls.sample is 1000000"),
        ({"states": {"path": "/nowhere.txt"}}, "there is no such file"),
        ({"states": {"count": 10**6}}, "states.count is 1000000"),
        ({"targets": {"tokens": 40}}, "is followed by 32 tokens"),
    ],
)
def test_a_mistake_is_found_before_a_run(tiny_model, content, message):
    with pytest.raises(UserError, match=message):
        check_curve(recipe_for(tiny_model, **content))


def test_a_recipe_without_mistakes_passes(tiny_model):
    check_curve(recipe_for(tiny_model, states={"count": 2}))


def test_all_states_of_a_file_are_not_counted_for_an_estimate():
    work = estimate_work(CurveRecipe.model_validate({"states": {"count": 0}, "baseline": "none"}))
    assert work["states"] == "all states of the file" and work["random controls at equal cost"] == "no"
