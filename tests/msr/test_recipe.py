"""Arms, claims and prompts of a recipe."""

import pytest

from llmctl.errors import UserError
from llmctl.msr import prompts
from llmctl.msr.recipe import MsrRecipe
from llmctl.runs import build_recipe, load_recipe

DATA = {"data": {"interactions": "a.csv", "items": "b.csv"}}


def recipe(*sets, **sections):
    return build_recipe(MsrRecipe, {**DATA, **sections}, "r.yaml", sets)


def test_an_arm_says_only_what_it_does_otherwise():
    found = recipe(
        "recommender.train.epochs=2",
        recommender={"train": {"learning_rate": 1e-3}},
        arms={"titles": {"recommender": {"variant": "text", "train": {"batch_size": 2}}}, "all": {}},
    )
    titles, whole = found.resolved_arms
    assert (titles.recommender.variant, whole.recommender.variant) == ("text", "summary")
    assert (titles.recommender.train.learning_rate, titles.recommender.train.epochs) == (1e-3, 2)
    assert (titles.recommender.train.batch_size, whole.recommender.train.batch_size) == (2, 4)
    assert titles.models == ("titles-untuned", "titles") and found.arm("all") == whole
    assert not titles.reads_descriptions and whole.reads_descriptions


def test_without_arms_there_is_one_and_without_training_it_is_untuned():
    (arm,) = recipe(recommender={"train": None, "untuned": False}).resolved_arms
    assert arm.name == "msr" and arm.models == ("msr-untuned",)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"arms": {"a": {"users": {"mod": "none"}}}}, "arms.a.users.mod: unknown key"),
        ({"arms": {"a": {"userz": {}}}}, "unknown key 'arms.a.userz'"),
        ({"arms": {"a/b": {}}}, "arms has the name 'a/b': small letters"),
        ({"arms": {"popularity": {}}}, "arms has the name 'popularity'"),
        ({"arms": {"a": {}, "a-untuned": {}}}, "two models would be called 'a-untuned'"),
        ({"claims": {"x beats y": ["msr", "y"]}}, "claims names 'y' in 'x beats y', but the models are"),
        ({"users": {"next_prompt": "{items}"}}, "users.next_prompt: the prompt lacks {summary}"),
        ({"recommender": {"prompt": "{candidate} {preferences}"}}, "{candidate} comes before {preferences}"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(sections, message):
    with pytest.raises(UserError) as error:
        recipe(**sections)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_braces_in_titles_fill_in_nothing():
    fields = {"preferences": "likes {candidate}", "candidate": "{x} {preferences}"}
    assert prompts.fill("{preferences} | {candidate}", fields) == "likes {candidate} | {x} {preferences}"


def test_an_item_is_one_line_however_long_and_whatever_is_missing():
    assert prompts.item_line("", "") == "(no title)"
    assert prompts.item_line(" a\nb ", "c\n\nd") == "a b: c d"
    assert prompts.item_line("x" * 500, "y" * 5000).count("...") == 2
    assert len(prompts.item_line("x" * 500, "y" * 5000)) == 200 + 2 + 1200


@pytest.mark.parametrize("name", ["demo", "microlens", "microlens-text", "paper"])
def test_the_recipes_of_the_project_are_sound(name):
    from llmctl.msr.preflight import estimate_work

    found = load_recipe(MsrRecipe, f"msr/{name}")
    assert estimate_work(found)["candidates per test user and model"] == 21
    if name == "paper":
        train = found.recommender.train
        assert (train.lora.r, train.lora.alpha, train.lora.dropout) == (16, 32, 0.1)
        assert (train.learning_rate, train.epochs, found.users.block, found.items.max_tokens) == (
            2e-5,
            4,
            3,
            200,
        )
        assert (found.users.temperature, found.users.top_p) == (0.6, 0.9)
