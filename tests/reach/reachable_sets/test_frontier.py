import torch

from llmctl.reach import Problem
from llmctl.reach.reachable_sets.frontier import Frontier
from llmctl.reach.reachable_sets.records import Exploration
from llmctl.reach.scoring.scan import StateScan
from tests.reach.oracle import FEW, STATE, emitted


def begun(model, letters, **settings):
    scan = StateScan(model, letters, Problem(state=STATE, candidates=FEW), max_k=2, chunk=5)
    frontier = Frontier(scan, Exploration(**settings), 2)
    chunks = []
    for chunk in scan.chunks():
        chunks.append(chunk)
        frontier.take_chunk(chunk)
    frontier.take_scan(scan.finish(chunks))
    return frontier


def test_the_scan_gives_the_exact_set_and_its_growth(small_model, letters):
    frontier = begun(small_model, letters)
    base = int(emitted(small_model, torch.empty(1, 0, dtype=torch.long)))
    exact = set(emitted(small_model, torch.tensor(FEW)[:, None]).tolist()) | {base}
    assert set(frontier.witness) == exact and frontier.witness[base] == ()
    assert [point.reached for point in frontier.growth] == sorted(p.reached for p in frontier.growth)


def test_exploring_spends_no_more_than_allowed_and_every_witness_holds(small_model, letters):
    frontier = begun(small_model, letters, forwards=30, sample=6, pool=4)
    frontier.seed_pool()
    list(frontier.run())
    assert frontier._spent <= 30
    for token, control in frontier.witness.items():
        assert int(emitted(small_model, torch.tensor([control], dtype=torch.long))) == token
