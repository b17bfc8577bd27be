import json

import pytest
import torch

from llmctl.errors import UserError
from llmctl.reach import Problem, scan_state, solve_state
from llmctl.reach.scoring import scan as scan_module
from llmctl.reach.scoring.scan import ScanChunk, StateScan
from llmctl.reach.search import schedule as schedules
from tests.reach.oracle import STATE, emitted, truth


def logprobs(model, controls):
    state = torch.tensor(STATE).expand(len(controls), -1)
    with torch.no_grad():
        return model(torch.cat([controls, state], 1)).logits[:, -1].log_softmax(-1)


def test_a_scan_gives_the_reachable_set_of_one_token_exactly(small_model, letters):
    for position in ("before", "after"):
        found = scan_state(small_model, letters, Problem(state=STATE, position=position))
        assert set(found.reachable()) == set(truth(small_model, range(40), 1, position))
        controls = torch.arange(40)[:, None]
        assert list(found.emitted) == emitted(small_model, controls, position).tolist()
        for token, witness in found.reachable().items():
            control = torch.tensor([witness], dtype=torch.long)
            assert int(emitted(small_model, control, position)) == token


def test_a_scan_gives_the_best_control_base_rank_and_loss_of_every_target(small_model, letters):
    found = scan_state(small_model, letters, Problem(state=STATE), targets=range(40))
    after_one = logprobs(small_model, torch.arange(40)[:, None])  # (controls, targets)
    alone = logprobs(small_model, torch.empty(1, 0, dtype=torch.long))[0]
    assert list(found.best_control) == after_one.argmax(0).tolist()
    assert found.best_loss == pytest.approx((-after_one.amax(0)).tolist(), abs=1e-5)
    assert found.base_loss == pytest.approx((-alone).tolist(), abs=1e-5)
    assert list(found.base_rank) == [int((alone > alone[t]).sum()) for t in range(40)]


def test_many_targets_cost_no_more_tokens_than_one(small_model, letters):
    one = scan_state(small_model, letters, Problem(state=STATE), targets=[3])
    all_targets = scan_state(small_model, letters, Problem(state=STATE), targets=range(40))
    assert all_targets.forward_tokens == one.forward_tokens
    assert all_targets.forwards == one.forwards == 41


def test_a_scan_goes_on_from_any_chunk_and_ends_the_same(small_model, letters, monkeypatch):
    monkeypatch.setattr(scan_module, "CHUNK", 16)
    whole = scan_state(small_model, letters, Problem(state=STATE), targets=[3, 4])
    first = StateScan(small_model, letters, Problem(state=STATE), [3, 4])
    kept = [json.loads(json.dumps(next(iter(first.chunks())).to_dict()))]
    again = StateScan(small_model, letters, Problem(state=STATE), [3, 4])
    chunks = [ScanChunk.from_dict(entry) for entry in kept]
    resumed = again.finish([*chunks, *again.chunks(done=16)])
    assert resumed.emitted == whole.emitted
    assert resumed.best_control == whole.best_control
    assert resumed.best_loss == pytest.approx(whole.best_loss, abs=1e-5)
    assert resumed.forward_tokens == whole.forward_tokens
    with pytest.raises(UserError, match="chunk at control 0 is missing"):
        again.finish(again.chunks(done=16))
    with pytest.raises(UserError, match="is there twice"):
        again.finish([*chunks, *again.chunks()])
    with pytest.raises(UserError, match="chunk at control 16 is missing"):
        again.finish(chunks)


def test_targets_of_one_state_share_one_scan(small_model, letters):
    least = truth(small_model, range(40), 1)
    targets = list(range(12))
    results = list(solve_state(small_model, letters, Problem(state=STATE), targets, max_k=1))
    for target, result in zip(targets, results, strict=True):
        assert result.target_ids == (target,)
        assert result.k == least.get(target)
        if target not in least:
            assert (result.verdict, result.certified_k) == ("unreachable", 1)
    # one scan, then for each target its base and at most the witness twice (batched and alone)
    assert sum(result.forwards for result in results) <= 41 + 12 * 4


def test_targets_that_one_token_does_not_reach_go_on_from_their_best_token(small_model, letters):
    least = truth(small_model, range(40), 2)
    targets = [token for token, k in least.items() if k == 2]
    schedule = schedules.single("greedy", 2, candidates=40)
    results = list(solve_state(small_model, letters, Problem(state=STATE), targets, schedule, max_k=2))
    assert any(result.k == 2 for result in results)
    assert all(result.certified_k == 1 for result in results)


def test_a_target_outside_the_vocabulary_is_refused(small_model, letters):
    with pytest.raises(UserError, match="targets holds token 40"):
        scan_state(small_model, letters, Problem(state=STATE), targets=[40])


def test_controls_that_do_not_survive_are_left_out_of_the_scan(model, tokenizer):
    half = tokenizer.encode("é")[:1]
    problem = Problem(state="ab", candidates=half + tokenizer.encode("xy"), must_roundtrip=True)
    found = scan_state(model, tokenizer, problem, targets=[40])
    place = found.controls.index(half[0])
    assert found.emitted[place] == -1
    assert sum(token == -1 for token in found.emitted) == 1
    assert half[0] not in found.best_control
