"""Whoever scores, the meter holds what went through the model; batches fit, and are halved in one way."""

import pytest
import torch

from llmctl.reach import Problem, lay_out
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, ScoreRequest
from llmctl.reach.scoring.merged import Merger
from llmctl.reach.scoring.pairs import PairBatch
from llmctl.reach.scoring.records import BLANK, Meter
from llmctl.reach.scoring.runner import Piece, Room, RowRunner, cut, halved, rows_that_fit
from llmctl.reach.scoring.scorer import Scorer

MEMORY = torch.OutOfMemoryError("CUDA out of memory")


class TokenCount:
    """Counts the tokens of every forward and backward pass of a model through a hook on it."""

    def __init__(self, model):
        self.forward = self.backward = 0
        self._handle = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, model, args, options):
        rows = options.get("input_ids", options.get("inputs_embeds"))
        self.forward += rows.shape[0] * rows.shape[1]
        if rows.is_floating_point() and rows.requires_grad:
            self.backward += rows.shape[0] * rows.shape[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._handle.remove()


def layout_for(tokenizer, state="hello there", target="yz", position="before"):
    return lay_out(Problem(state=state, target=target, position=position), tokenizer)


def some_controls(rows=12, k=3):
    base = torch.arange(60, 60 + k)
    controls = base.repeat(rows, 1)
    controls[range(rows), torch.arange(rows) % k] = torch.arange(rows) + 100
    return controls, base


@pytest.mark.parametrize("position", ["before", "after", "user_end"])
def test_a_scorer_counts_what_goes_through_the_model(any_model, tokenizer, position):
    scorer = Scorer(any_model, layout_for(tokenizer, position=position), batch=5)
    controls, base = some_controls()
    with TokenCount(any_model) as seen:
        scorer.score(controls)
        scorer.score(controls, base)
        list(scorer.next_logits(controls))
        scorer.base()
        scorer.gradient(torch.tensor([70, BLANK]))
        scorer.emits(scorer.layout.prompt([70]))
    assert (scorer.meter.forward_tokens, scorer.meter.backward_tokens) == (seen.forward, seen.backward)
    assert seen.backward > 0


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_batch_of_pairs_counts_what_goes_through_the_model(any_model, tokenizer, position):
    layouts = [layout_for(tokenizer, "so " * n, "abc"[: 1 + n % 3], position) for n in range(1, 20, 3)]
    pairs = PairBatch(any_model, layouts)
    controls, base = some_controls()
    with TokenCount(any_model) as seen:
        pairs.score(controls, base)
        pairs.score(controls[:, :0])
        pairs.gradient(torch.tensor([70, BLANK]))
    assert (pairs.meter.forward_tokens, pairs.meter.backward_tokens) == (seen.forward, seen.backward)
    assert seen.backward > 0


def test_a_merger_counts_what_goes_through_the_model(any_model, tokenizer):
    merger = Merger(any_model)
    sides = [("hello there", "before"), ("a state that is a good deal longer", "after"), ("ok", "user_end")]
    scorers = [
        AskingScorer(any_model, layout_for(tokenizer, state, position=position), lambda _: None)
        for state, position in sides
    ]
    controls, base = some_controls()
    with TokenCount(any_model) as seen:
        merger.answer([ScoreRequest(scorer, controls, base) for scorer in scorers])
        merger.answer([GradientRequest(scorer, base) for scorer in scorers])
    assert (merger.meter.forward_tokens, merger.meter.backward_tokens) == (seen.forward, seen.backward)
    assert seen.backward > 0


def test_a_search_is_counted_in_company_as_alone(any_model, tokenizer):
    merger = Merger(any_model)
    controls, base = some_controls()
    for state, position in (("hello there", "before"), ("a state that is longer", "after")):
        layout = layout_for(tokenizer, state, position=position)
        alone, asking = Scorer(any_model, layout), AskingScorer(any_model, layout, lambda _: None)
        alone.score(controls, base)
        alone.gradient(base)
        merger.answer([ScoreRequest(asking, controls, base)])
        merger.answer([GradientRequest(asking, base)])
        assert vars(asking.meter) == vars(alone.meter)


def test_the_copied_cache_counts_in_what_fits(model, monkeypatch):
    monkeypatch.setattr("llmctl.reach.scoring.runner.CACHE_BYTES", {"cpu": 10_000})
    assert rows_that_fit(model, Room(length=4)) == 1024 // 4
    assert rows_that_fit(model, Room(length=4, cached=6, token_bytes=100)) == 10_000 // (10 * 100)
    assert rows_that_fit(model, Room(length=4, cached=10**6, token_bytes=100)) == 1


def test_a_long_shared_state_is_scored_in_batches_whose_copies_fit(model, tokenizer, monkeypatch):
    layout = layout_for(tokenizer, "a long state " * 4, position="after")
    controls = torch.arange(3, 103).view(50, 2)
    expected = Scorer(model, layout).score(controls).loss
    scorer = Scorer(model, layout)
    token_bytes = scorer._prefixes.hold(layout.left_ids)
    monkeypatch.setattr(
        "llmctl.reach.scoring.runner.CACHE_BYTES", {"cpu": 7 * token_bytes * (len(layout.left_ids) + 3)}
    )
    rows = []
    handle = model.register_forward_pre_hook(
        lambda _, args, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    found = scorer.score(controls).loss
    handle.remove()
    assert max(rows) == 7 and sum(rows) == 50
    assert torch.allclose(found, expected, atol=1e-5)


def test_batches_are_halved_until_they_fit_and_stay_so(model):
    runner, seen = RowRunner(model, Meter()), []

    def run(part):
        if part.stop - part.start > 5:
            raise MEMORY
        seen.append((part.start, part.stop))
        return part.stop

    assert [value for _, value in runner.batches(10, 16, run)] == [5, 10]
    assert list(runner.batches(7, 16, run))[-1][1] == 7
    assert seen == [(0, 5), (5, 10), (0, 5), (5, 7)]


def test_pieces_of_several_jobs_share_a_batch_and_unwanted_ones_are_dropped(model):
    runner = RowRunner(model, Meter())
    pieces = [
        Piece("a", slice(0, 3)),
        Piece("b", slice(0, 4)),
        Piece("c", slice(0, 0)),
        Piece("d", slice(0, 2)),
    ]
    runs = [
        [(piece.job, piece.rows.start, piece.rows.stop) for piece in taken]
        for taken, _ in runner.in_batches(pieces, lambda _: 4, lambda _: None, lambda piece: piece.job != "b")
    ]
    assert runs == [[("a", 0, 3), ("b", 0, 1)], [("d", 0, 2)]]


def test_cutting_leaves_no_row_out():
    taken, left = cut([Piece("a", slice(2, 5)), Piece("b", slice(0, 4))], 5)
    assert [(piece.job, piece.rows) for piece in taken] == [("a", slice(2, 5)), ("b", slice(0, 2))]
    assert [(piece.job, piece.rows) for piece in left] == [("b", slice(2, 4))]


def test_only_a_lack_of_memory_halves_and_one_row_cannot_be_halved():
    assert halved(9, MEMORY) == 4
    assert halved(2, RuntimeError("[enforce fail] can't allocate memory")) == 1
    with pytest.raises(RuntimeError, match="bad kernel"):
        halved(9, RuntimeError("bad kernel"))
    with pytest.raises(torch.OutOfMemoryError):
        halved(1, MEMORY)


def test_a_pass_whose_logits_are_refused_is_not_counted(model):
    runner = RowRunner(model, Meter())

    def refuse(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        runner.forward(keep=1, check=refuse, input_ids=torch.tensor([[3, 4]]))
    assert runner.meter == Meter()
    runner.forward(keep=1, input_ids=torch.tensor([[3, 4], [5, 6]]))
    runner.forward(keep=1, sequences=0, input_ids=torch.tensor([[3, 4]]))
    assert runner.meter == Meter(forwards=2, forward_tokens=6)
