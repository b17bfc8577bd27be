"""Weights and which responses are kept."""

import math

import pytest

from llmctl.errors import UserError
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.weights import is_kept, raw_weight
from llmctl.runs.recipe import parse_recipe


def test_the_exponential_weight_is_that_of_the_public_code():
    # exp(1 / 0.4) = 12.1825 and exp(0) = 1
    assert raw_weight(1.0, [0, 1], "exp", 0.4) == pytest.approx(12.182494)
    assert raw_weight(0.0, [0, 1], "exp", 0.4) == 1.0
    assert raw_weight(-1.0, [], "exp", 0.4) == pytest.approx(1 / 12.182494)


def test_the_advantage_is_centred_on_the_states_own_samples():
    # mean of 1, 0, 0, -1 is 0, of 1, 1, 0, 0 is 0.5
    assert raw_weight(1.0, [1, 0, 0, -1], "advantage", 0.5) == pytest.approx(math.exp(2))
    assert raw_weight(1.0, [1, 1, 0, 0], "advantage", 0.5) == pytest.approx(math.e)
    assert raw_weight(1.0, [1, 1], "advantage", 0.5) == 1.0
    assert raw_weight(1.0, [], "advantage", 0.5) == pytest.approx(math.exp(2))


# (reward, rewards before) -> all, better, best, success
@pytest.mark.parametrize(
    ("reward", "earlier", "kept"),
    [
        (1, [], (True, True, True, True)),
        (0, [], (True, True, True, False)),
        (1, [0], (True, True, True, True)),
        (0, [0], (True, False, True, False)),
        (0, [-1], (True, True, True, False)),
        (0, [0, -1], (True, True, True, False)),
        (-1, [0], (True, False, False, False)),
        (0, [0.5, -1], (True, True, False, False)),
    ],
)
def test_what_is_kept(reward, earlier, kept):
    assert tuple(is_kept(reward, earlier, keep) for keep in ("all", "better", "best", "success")) == kept


def test_a_temperature_that_would_overflow_is_refused():
    with pytest.raises(
        UserError, match="weights.tau is 0.001 .float., but it should be greater than or equal"
    ):
        parse_recipe(RiseRecipe, {"weights": {"tau": 0.001}}, "r.yaml")
    assert 0 < raw_weight(-1, [1], "advantage", 0.01) < raw_weight(1, [-1], "advantage", 0.01) < math.inf
