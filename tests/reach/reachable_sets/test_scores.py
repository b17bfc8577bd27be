import torch

from llmctl.reach.reachable_sets.scores import pull_score, push_score

# Two distributions over three tokens, of which the first is reached.
LOGPROBS = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]]).log()
REACHED = torch.tensor([True, False, False])


def test_push_prefers_the_distribution_away_from_what_is_reached():
    assert push_score(LOGPROBS, REACHED).argmax() == 1


def test_pull_prefers_the_distribution_that_is_sharp_on_something_new():
    found = pull_score(LOGPROBS, REACHED)
    assert found.argmax() == 1 and torch.allclose(found[0], torch.tensor(0.5).log())


def test_with_everything_reached_nothing_pulls():
    assert pull_score(LOGPROBS, torch.ones(3, dtype=torch.bool)).tolist() == [0, 0]
