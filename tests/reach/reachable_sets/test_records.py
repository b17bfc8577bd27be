import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.reachable_sets.recipe import SetRecipe
from llmctl.reach.reachable_sets.records import Exploration, Growth, ReachableSet, Reached
from llmctl.reach.reachable_sets.spec import estimate_set

FOUND = ReachableSet(
    2,
    (Reached(4, "d", (), 0, 0.5, 0.5), Reached(7, "g", (1, 2), 3, 2.0, 0.1)),
    False, 1, 40, (5, 6), "before", "push", 0, 60, 240, (Growth(1, 40, 160), Growth(2, 60, 240)),
)  # fmt: skip


def test_tokens_are_those_within_k():
    assert FOUND.tokens() == {4, 7} and FOUND.tokens(1) == {4}


def test_a_set_is_json():
    entry = json.loads(json.dumps(FOUND.to_dict()))
    assert entry["reached"][1]["control_ids"] == [1, 2] and entry["growth"][1]["reached"] == 2


def test_settings_that_cannot_be_used_are_refused():
    with pytest.raises(UserError, match="strategy is 'x'"):
        Exploration(strategy="x")
    with pytest.raises(UserError, match="pool is 0"):
        Exploration(pool=0)
    with pytest.raises(ValueError, match="--state and --state-ids are both given"):
        SetRecipe(state="a", state_ids=(1,))


def test_the_estimate_names_the_lengths():
    assert len(estimate_set(SetRecipe(state="a"))) == 1
    assert estimate_set(SetRecipe(state="a", k=3))["controls scored for k = 2 to 3, at most"] == 4096
