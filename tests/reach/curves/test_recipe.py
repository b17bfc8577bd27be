import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.recipe import CurveRecipe, read_curve_recipe


def test_ks_and_max_k_follow_the_schedule():
    own = CurveRecipe.model_validate({"search": {"max_k": 3}})
    assert (own.ks, own.max_k) == ([0, 1, 2, 3], 3)
    published = CurveRecipe.model_validate({"search": {"schedule": "published", "ks_gcg": [4, 6]}})
    assert (published.ks, published.max_k) == ([0, 1, 2, 3, 4, 6], 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shard": {"index": 2, "of": 2}}, "shards count from 0"),
        ({"search": {"schedule": "scan", "max_k": 2}}, "finds controls of at most 1 token"),
        ({"search": {"schedule": "nothing"}}, "or take default or published"),
        ({"controls": {"position": "template"}}, "a curve's states are plain texts"),
        ({"states": {"path": "a", "pairs": "b"}}, "states come from one place"),
        ({"search": {"share_scan": True}, "targets": {"tokens": 2}}, "answers targets of one token"),
    ],
)
def test_parts_that_do_not_fit_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        CurveRecipe.model_validate(content)


def test_only_a_curves_folder_gives_its_recipe(tmp_path):
    with pytest.raises(UserError, match="is no run"):
        read_curve_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("kind: rise\n")
    with pytest.raises(UserError, match="is a run of kind 'rise'"):
        read_curve_recipe(tmp_path)
