import json

import pytest
import torch

from llmctl.errors import UserError
from llmctl.reach import Problem, reachable_set
from llmctl.reach.reachable_sets.explore import (
    Exploration,
    Growth,
    ReachableSet,
    explore,
)
from llmctl.reach.reachable_sets.scores import pull_score, push_score
from tests.reach.oracle import STATE, emitted, truth


def test_the_set_of_one_token_is_exact(small_model, letters):
    found = reachable_set(small_model, letters, Problem(state=STATE))
    assert found.tokens() == set(truth(small_model, range(40), 1))
    assert found.is_exact
    assert found.forwards >= 41


@pytest.mark.parametrize("strategy", ["push", "pull", "alternate", "random"])
def test_the_set_of_three_tokens_is_a_growing_subset_of_the_truth(small_model, letters, strategy):
    few = list(range(0, 40, 3))
    least = truth(small_model, few, 3)
    problem = Problem(state=STATE, candidates=few)
    found = reachable_set(small_model, letters, problem, 3, Exploration(400, strategy, sample=14, pool=8))
    assert found.tokens() <= set(least)
    assert found.tokens(1) == {token for token, k in least.items() if k <= 1}
    assert len(found.tokens()) > len(found.tokens(1))
    assert not found.is_exact
    counts = [growth.reached for growth in found.growth]
    assert counts == sorted(counts) and counts[-1] == len(found.reached)
    for entry in found.reached:
        control = torch.tensor([entry.control_ids], dtype=torch.long)
        assert int(emitted(small_model, control)) == entry.token


def test_a_larger_budget_reaches_no_less(small_model, letters):
    sizes = [
        len(reachable_set(small_model, letters, Problem(state=STATE), 3, Exploration(budget)).reached)
        for budget in (128, 512, 2048)
    ]
    assert sizes == sorted(sizes)


def test_each_reached_token_has_its_base_rank_and_losses(small_model, letters):
    found = reachable_set(small_model, letters, Problem(state=STATE))
    with torch.no_grad():
        base = small_model(torch.tensor([STATE])).logits[0, -1].log_softmax(-1)
    assert found.reached[0].base_rank == 0 and found.reached[0].control_ids == ()
    for entry in found.reached:
        with torch.no_grad():
            row = small_model(torch.tensor([[*entry.control_ids, *STATE]])).logits[0, -1].log_softmax(-1)
        assert entry.base_loss == pytest.approx(-float(base[entry.token]), abs=1e-5)
        assert entry.loss == pytest.approx(-float(row[entry.token]), abs=1e-5)
        assert entry.base_rank == int((base > base[entry.token]).sum())
        assert entry.text == letters.decode([entry.token])


def test_exploration_yields_its_growth_and_serialises(small_model, letters):
    *steps, found = explore(small_model, letters, Problem(state=STATE), 2, Exploration(200))
    assert all(isinstance(step, Growth) for step in steps) and isinstance(found, ReachableSet)
    entry = json.loads(json.dumps(found.to_dict()))
    assert len(entry["reached"]) == len(found.reached)
    assert entry["reached"][0]["control_ids"] == []


def test_push_is_cross_entropy_against_the_uniform_distribution_on_what_is_reached():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    reached = torch.tensor([True, True, False])
    # -(log 0.5 + log 0.25) / 2 = 1.0397; -(2 log 0.1) / 2 = 2.3026: the second lies further away
    assert push_score(probabilities.log(), reached).tolist() == pytest.approx([1.0397, 2.3026], abs=1e-4)


def test_pull_is_negative_entropy_on_what_is_not_reached():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.45, 0.05]])
    reached = torch.tensor([True, False, False])
    # restricted to the last two: (1/2, 1/2) has -log 2; (0.9, 0.1) has 0.9 log 0.9 + 0.1 log 0.1
    assert pull_score(probabilities.log(), reached).tolist() == pytest.approx([-0.6931, -0.3251], abs=1e-4)
    assert pull_score(probabilities.log(), torch.ones(3, dtype=torch.bool)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strategy": "shove"}, "strategy is 'shove'"), ({"pool": 0}, "pool is 0")],
)
def test_a_bad_exploration_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Exploration(**options)


def test_no_control_is_no_question(small_model, letters):
    with pytest.raises(UserError, match="k is 0"):
        reachable_set(small_model, letters, Problem(state=STATE), 0)


def test_reached_tokens_are_told_as_soon_as_they_are_known(small_model, letters):
    told, sizes = {}, []
    steps = explore(
        small_model,
        letters,
        Problem(state=STATE),
        2,
        Exploration(200),
        on_reached=lambda token, control: told.__setitem__(token, control),
        chunk=10,
    )
    for step in steps:
        sizes.append(len(told))
        if isinstance(step, ReachableSet):
            found = step
    assert told == {entry.token: entry.control_ids for entry in found.reached}
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert len([growth for growth in found.growth]) >= 4  # forty controls in chunks of ten
