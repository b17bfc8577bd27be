import torch

from llmctl.reach.universal.candidates import distinct, extensions, swaps, whole

TOKENS = torch.tensor([2, 5, 9])


def generator():
    return torch.Generator().manual_seed(0)


def test_the_first_half_are_the_swaps_that_promise_most():
    slopes = torch.tensor([[0.0, 1.0, -3.0], [0.0, -1.0, 0.0]])  # (K, M)
    found = swaps(TOKENS, torch.tensor([2, 2]), slopes, 4, top_k=3, skip=0, generator=generator())
    assert found[:2].tolist() == [[9, 2], [2, 5]]  # falls of 3 and of 1


def test_enough_candidates_cover_all_swaps_but_the_control_itself():
    control = torch.tensor([2, 5])
    found = swaps(TOKENS, control, torch.zeros(2, 3), 99, top_k=3, skip=0, generator=generator())
    assert sorted(found.tolist()) == [[2, 2], [2, 9], [5, 5], [9, 5]]


def test_extensions_stand_at_the_end_that_is_asked_for_and_go_on_where_they_stopped():
    slopes = torch.tensor([3.0, 1.0, 2.0])
    base = torch.tensor([7])
    assert extensions(TOKENS, base, slopes, 2, skip=0, to_the_right=True).tolist() == [[7, 5], [7, 9]]
    assert extensions(TOKENS, base, slopes, 2, skip=2, to_the_right=False).tolist() == [[2, 7], [5, 7]]


def test_whole_controls_are_different_and_allowed():
    found = whole(TOKENS, 2, 50, generator())
    assert len(found) <= 9 and len(found.unique(dim=0)) == len(found)
    assert torch.isin(found, TOKENS).all()


def test_equal_controls_come_once_in_their_order():
    controls = torch.tensor([[3, 3], [1, 2], [3, 3], [0, 0]])
    assert distinct(controls).tolist() == [[3, 3], [1, 2], [0, 0]]
    assert distinct(controls, torch.tensor([1, 2])).tolist() == [[3, 3], [0, 0]]
