"""One control for many pairs: scores against plain passes, choices against brute force."""

import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from llmctl.errors import UserError
from llmctl.reach import OptimizeSettings, optimize, optimize_steps
from llmctl.reach.scoring.pairs import PairBatch
from llmctl.reach.scoring.scorer import BLANK, Meter, Scorer, reduce_logits
from llmctl.reach.universal import candidates as proposals
from llmctl.reach.universal.data import TextPair, lay_out_pairs
from llmctl.reach.universal.recipe import ControlSettings
from llmctl.reach.universal.score import match_as_text, score_pairs, score_without_each
from llmctl.reach.universal.search import Universal
from tests.reach.oracle import FEW

# Questions and answers of different lengths, so that rows are padded and stacks are split.
PAIRS = [("5A3", "B"), ("@2", "C7"), ("1234567", "D"), ("9", "E82"), ("A" * 30, "FF"), ("B1", "C")]
OTHERS = [("77", "B"), ("CAB", "8")]


def settings(seed=0, **changes):
    control = {"k": 2} | {
        key: changes.pop(key) for key in list(changes) if key in ControlSettings.model_fields
    }
    search = {"steps": 5, "warm_steps": 2, "candidates": 12, "top_k": 8, "minibatch": 3, "finalists": 2}
    return OptimizeSettings(control=control, search=search | changes, seed=seed)


def layouts_of(tokenizer, pairs=PAIRS, vocabulary=40, **control):
    return lay_out_pairs(
        [TextPair(*p) for p in pairs], ControlSettings(**control), tokenizer, vocabulary, None
    )


def plain_loss(model, layout, control):
    """The mean cross-entropy and the match of one pair by one full pass."""
    target = torch.tensor(layout.target_ids)
    ids = torch.tensor([[*layout.prompt(control), *layout.target_ids]])
    with torch.no_grad():
        logits = model(ids).logits[0, -len(target) - 1 : -1]
    return float(F.cross_entropy(logits, target)), bool((logits.argmax(-1) == target).all())


@pytest.mark.parametrize("position", ["before", "after", "user_end"])
def test_stacked_scores_equal_plain_ones_in_every_family(any_model, tokenizer, position):
    pairs = [(f"say {'very ' * (i % 4)}{i}", "yes!"[: 1 + i % 4]) for i in range(7)] + [("long " * 20, "no")]
    layouts = layouts_of(tokenizer, pairs, 259, position=position)
    base = torch.tensor([70, 80, 90])
    controls = base.repeat(9, 1)
    controls[range(8), torch.arange(8) % 3] = torch.arange(8) + 100
    for given in (None, base):
        table = PairBatch(any_model, layouts).score(controls, given)
        for row, layout in enumerate(layouts):
            for column, control in enumerate(controls.tolist()):
                loss, match = plain_loss(any_model, layout, control)
                assert float(table.loss[row, column]) == pytest.approx(loss, abs=3e-5)
                assert bool(table.is_hit[row, column]) == match


@pytest.mark.parametrize("control", [[70, 80, 90], [70, BLANK, 90]])
def test_the_gradient_is_the_mean_over_the_pairs_alone(any_model, tokenizer, control):
    pairs = [(f"say {'very ' * (i % 3)}{i}", "yes!"[: 1 + i % 4]) for i in range(5)]
    layouts = layouts_of(tokenizer, pairs, 259)
    found = PairBatch(any_model, layouts).gradient(torch.tensor(control))
    alone = [Scorer(any_model, layout).gradient(torch.tensor(control))[0] for layout in layouts]
    torch.testing.assert_close(found, torch.stack(alone).mean(0), atol=2e-5, rtol=1e-3)


def test_a_target_that_has_ended_counts_no_more():
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 5.0, 0.0]]]).repeat(2, 1, 1)
    loss, is_hit, margin = reduce_logits(logits, torch.tensor([[0, BLANK], [0, 1]]))
    first, second = (-logits[0].log_softmax(-1)[place, token] for place, token in ((0, 0), (1, 1)))
    torch.testing.assert_close(loss, torch.stack([first, (first + second) / 2]))
    assert is_hit.tolist() == [True, True]
    assert margin.tolist() == [1.0, 1.0]


def test_tokens_are_counted_as_they_go_through_the_model(small_model, letters):
    meter = Meter()
    layouts = layouts_of(letters, [("123", "A"), ("12", "B")])
    PairBatch(small_model, layouts, meter).score(torch.tensor([[1, 2], [3, 4]]))
    # Two pairs and two controls: 3 + 2 tokens a row, the shorter pair padded by one.
    assert (meter.forwards, meter.forward_tokens) == (4, 20)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("method", ["gcg", "swap"])
def test_one_token_with_all_candidates_is_the_best_by_brute_force(small_model, letters, position, method):
    chosen = settings(
        k=1, position=position, method=method, allowed=FEW, steps=1, candidates=99, minibatch=99
    )
    result = optimize(small_model, letters, PAIRS, chosen)
    layouts = layouts_of(letters, position=position)
    means = {
        token: sum(plain_loss(small_model, layout, [token])[0] for layout in layouts) / len(layouts)
        for token in FEW
    }
    best = min(means, key=means.get)
    assert result.control_ids == (best,)
    assert result.train.loss == pytest.approx(means[best], abs=1e-5)


def test_few_candidates_a_step_still_exhaust_one_token(small_model, letters):
    # 14 tokens, 4 candidates a step, half of which are taken by rank: the ranks that failed are skipped.
    chosen = settings(k=1, allowed=FEW, steps=16, candidates=4, top_k=99, minibatch=99)
    exhausted = settings(k=1, allowed=FEW, steps=1, candidates=99, minibatch=99)
    ids = [optimize(small_model, letters, PAIRS, one).control_ids for one in (chosen, exhausted)]
    assert ids[0] == ids[1]


def test_two_tokens_come_near_the_best_of_all_by_brute_force(small_model, letters):
    layouts = layouts_of(letters)
    controls = torch.tensor(list(itertools.product(FEW, repeat=2)))
    losses = PairBatch(small_model, layouts).score(controls).loss.mean(0)
    chosen = settings(k=2, allowed=FEW, steps=12, candidates=16, top_k=14, minibatch=99)
    found = optimize(small_model, letters, PAIRS, chosen)
    share_better = float((losses < found.train.loss - 1e-6).double().mean())
    assert share_better <= 0.02


@pytest.mark.parametrize("method", ["gcg", "swap", "random"])
def test_the_kept_loss_never_rises_and_is_that_of_the_kept_control(small_model, letters, method):
    *steps, result = optimize_steps(small_model, letters, PAIRS, settings(method=method))
    losses = [step.loss for step in steps]
    assert losses == sorted(losses, reverse=True)
    layouts = layouts_of(letters)
    for step in steps:
        plain = [plain_loss(small_model, layout, step.control_ids) for layout in layouts]
        assert step.loss == pytest.approx(sum(loss for loss, _ in plain) / len(plain), abs=1e-5)
        assert step.matches == sum(match for _, match in plain)
    assert result.control_ids == steps[-1].control_ids
    assert result.train.loss == pytest.approx(losses[-1], abs=1e-5)
    assert [step.forward_tokens for step in steps] == sorted(step.forward_tokens for step in steps)


def test_held_out_pairs_never_influence_the_control(small_model, letters):
    results = [
        optimize(small_model, letters, PAIRS, settings(), held_out=side) for side in ((), OTHERS, OTHERS[:1])
    ]
    assert len({result.control_ids for result in results}) == 1
    assert len({result.path for result in results}) == 1
    assert results[0].held_out is None
    assert len(results[1].held_out.losses) == 2


def test_a_judge_of_fewer_pairs_decides_on_those_alone(small_model, letters):
    chosen = settings(k=1, allowed=FEW, steps=1, candidates=99, minibatch=99, finalists=99, judge=2)
    found = optimize(small_model, letters, PAIRS, chosen)
    alone = optimize(small_model, letters, PAIRS[:2], chosen)
    assert found.control_ids == alone.control_ids


def test_a_search_goes_on_from_any_step_as_if_it_had_not_stopped(small_model, letters):
    search = Universal(small_model, letters, PAIRS, settings())
    whole = list(search.steps())
    for stop in (0, 2, 5):
        again = Universal(small_model, letters, PAIRS, settings())
        assert list(again.steps(start=whole[stop])) == whole[stop + 1 :]


def test_a_baseline_takes_at_least_as_many_tokens(small_model, letters):
    search = Universal(small_model, letters, PAIRS, settings())
    *_, last = search.steps()
    *_, before, end = search.steps("random", budget=last.tokens)
    assert before.tokens < last.tokens <= end.tokens


def test_a_search_stops_when_all_pairs_match_or_patience_ends(small_model, letters):
    easy = [("5A3", letters.decode([int(small_model(torch.tensor([[5, 17, 3]])).logits[0, -1].argmax())]))]
    *steps, _ = optimize_steps(
        small_model, letters, easy, settings(k=1, steps=50, candidates=40, stop_when_matched=True)
    )
    assert len(steps) < 50
    assert steps[-1].matches == 1
    *steps, _ = optimize_steps(small_model, letters, PAIRS, settings(k=1, allowed=FEW, steps=60, patience=4))
    assert len(steps) < 60
    assert steps[-1].stale == 4


def test_left_out_tokens_are_scored_as_shorter_controls(small_model, letters):
    layouts = layouts_of(letters)
    found = score_without_each(small_model, layouts, torch.tensor([1, 2, 3]))
    shorter = ([2, 3], [1, 3], [1, 2])
    assert found == pytest.approx(
        [score_pairs(small_model, layouts, torch.tensor([ids])).loss for ids in shorter], abs=1e-6
    )
    alone = score_without_each(small_model, layouts, torch.tensor([1]))
    empty = score_pairs(small_model, layouts, torch.empty(1, 0, dtype=torch.long))
    assert alone == pytest.approx([empty.loss], abs=1e-6)


def test_controls_that_must_roundtrip_do_in_every_prompt(model, tokenizer):
    pairs = [(f"say {i}", "ok") for i in range(4)]
    # Bytes 130 to 140 alone are no text, 70 to 80 are letters.
    allowed = (*range(70, 75), *range(130, 180))
    free, bound = (
        optimize(model, tokenizer, pairs, settings(k=2, allowed=allowed, must_roundtrip=must))
        for must in (False, True)
    )
    layouts = layouts_of(tokenizer, pairs, 259)
    same, matches = match_as_text(model, tokenizer, layouts, bound.control_ids)
    assert all(same)
    assert matches == [bool(match) for match in bound.train.matches]
    assert bound.train.loss >= free.train.loss - 1e-6
    assert match_as_text(model, tokenizer, layouts, (150,))[0] == [False] * 4


def test_a_result_is_json(small_model, letters):
    import json

    result = optimize(small_model, letters, PAIRS, settings(), held_out=OTHERS)
    entry = json.loads(json.dumps(result.to_dict()))
    assert entry["control_ids"] == list(result.control_ids)
    assert len(entry["path"]) == len(result.path) == 7
    assert entry["held_out"]["losses"] == list(result.held_out.losses)


def test_candidates_differ_by_one_allowed_token_and_come_once():
    generator = torch.Generator().manual_seed(0)
    tokens, control = torch.tensor(FEW), torch.tensor([0, 3, 6])
    slopes = torch.randn(3, len(FEW), generator=generator)
    found = proposals.swaps(tokens, control, slopes, 20, top_k=8, skip=0, generator=generator)
    assert len(found) == len(found.unique(dim=0))
    assert ((found != control).sum(1) == 1).all()
    assert torch.isin(found, tokens).all()
    fall = [slopes[i, FEW.index(int(control[i]))] - slopes[i, j] for i in range(3) for j in range(14)]
    place = int((found[0] != control).nonzero())
    first = slopes[place, FEW.index(int(control[place]))] - slopes[place, FEW.index(int(found[0, place]))]
    assert first == max(fall)


def test_a_template_takes_the_question_and_the_control(tokenizer):
    template = ({"role": "system", "content": "Be {control}!"}, {"role": "user", "content": "Q: {question}"})
    (layout,) = layouts_of(tokenizer, [("why", "so")], 259, position="template", template=template)
    messages = [{"role": "system", "content": "Be kind!"}, {"role": "user", "content": "Q: why"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(layout.prompt(tokenizer.encode("kind", add_special_tokens=False))) == text


@pytest.mark.parametrize(
    ("pairs", "held_out", "message"),
    [
        ([], [], "no training pairs"),
        ([("1", "")], [], "pair 0: the answer is '', which has no tokens"),
        ([("1", "2"), ("", "2")], [], "pair 1: the state is empty"),
        (
            [("1", "2"), ("1" * 126, "2")],
            [],
            r"pair 1: state, target and 2 control tokens are 129 tokens.*128",
        ),
        ([("1", "2"), ("3", "4")], [("3", "5")], "1 held-out questions are training questions too.*'3'"),
    ],
)
def test_bad_pairs_are_refused_in_one_line(small_model, letters, pairs, held_out, message):
    with pytest.raises(UserError, match=message) as caught:
        optimize_steps(small_model, letters, pairs, settings(), held_out=held_out)
    assert "\n" not in str(caught.value)


def test_the_package_stays_light():
    code = "import sys, llmctl.reach, llmctl.reach.universal.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
