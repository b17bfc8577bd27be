from dataclasses import replace

import pytest

from llmctl.errors import UserError
from llmctl.reach import OptimizeSettings
from llmctl.reach.universal.search import Universal

PAIRS = [("5A3", "B"), ("@2", "C7"), ("12", "D")]


def search_of(model, letters, **search):
    settings = OptimizeSettings.model_validate(
        {
            "control": {"k": 2},
            "search": {"steps": 3, "warm_steps": 2, "candidates": 6, "minibatch": 2} | search,
        }
    )
    return Universal(model, letters, PAIRS, settings)


def test_shorter_lengths_come_first_for_their_warm_steps(small_model, letters):
    steps = list(search_of(small_model, letters).steps())
    assert [(step.k, step.at) for step in steps] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    assert len(steps[-1].control_ids) in (1, 2)
    costs = [step.forward_tokens for step in steps]
    assert costs == sorted(costs) and costs[0] > 0


def test_a_random_search_draws_whole_controls_from_the_start(small_model, letters):
    steps = list(search_of(small_model, letters, method="random").steps())
    assert [step.k for step in steps] == [2, 2, 2] and steps[-1].backward_tokens == 0


def test_a_budget_replaces_the_number_of_steps(small_model, letters):
    search = search_of(small_model, letters)
    assert list(search.steps("random", budget=1))[-1].step == 1
    assert list(search.steps("random", budget=10**9, most=2))[-1].step == 2


def test_a_search_without_a_control_says_what_to_change(small_model, letters):
    search = search_of(small_model, letters)
    last = list(search.steps())[-1]
    assert search.found(last).tolist() == list(last.control_ids)
    with pytest.raises(UserError, match="must_roundtrip=false"):
        search.found(replace(last, loss=None))
