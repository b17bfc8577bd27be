import copy

import pytest
import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, ScoreRequest
from llmctl.reach.scoring.merged import Merger
from llmctl.reach.scoring.records import NotFiniteError
from llmctl.reach.scoring.scorer import Scorer

LAYOUTS = [
    Layout((), (5, 6), (9,), (5, 6)),
    Layout((), (5, 6, 7, 8), (9, 10), (5, 6, 7, 8)),
    Layout(tuple(range(11, 21)), (), (9,), tuple(range(11, 21)), "after"),
]
CONTROLS = torch.tensor([[1, 2], [1, 3], [4, 3], [1, 2]])


@pytest.fixture(scope="module")
def exact(small_model):
    return copy.deepcopy(small_model).double()


def asking(model):
    return [AskingScorer(model, layout, lambda _: None) for layout in LAYOUTS]


def test_scores_and_gradients_are_those_of_lone_scorers(exact):
    scorers, merger = asking(exact), Merger(exact)
    scored = merger.answer([ScoreRequest(scorer, CONTROLS) for scorer in scorers])
    slopes = merger.answer([GradientRequest(scorer, CONTROLS[0]) for scorer in scorers])
    for layout, (scores, _), (slope, loss) in zip(LAYOUTS, scored, slopes, strict=True):
        lone = Scorer(exact, layout)
        torch.testing.assert_close(scores.loss, lone.score(CONTROLS).loss)
        expected, lone_loss = lone.gradient(CONTROLS[0])
        torch.testing.assert_close(slope, expected, atol=1e-5, rtol=1e-4)
        assert loss == pytest.approx(lone_loss)


def test_the_base_comes_with_its_rank(exact):
    scorers = asking(exact)
    empty = torch.empty(1, 0, dtype=torch.long)
    found = Merger(exact).answer([ScoreRequest(scorer, empty) for scorer in scorers])
    assert [rank for _, rank in found] == [Scorer(exact, layout).base()[0] for layout in LAYOUTS]


def test_a_backward_pass_is_halved_when_memory_runs_out(exact, monkeypatch):
    expected = Merger(exact).answer([GradientRequest(scorer, CONTROLS[0]) for scorer in asking(exact)])
    forward = exact.forward

    def crowded(*args, **options):
        if len(options.get("inputs_embeds", ())) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **options)

    monkeypatch.setattr(exact, "forward", crowded)
    found = Merger(exact).answer([GradientRequest(scorer, CONTROLS[0]) for scorer in asking(exact)])
    for (slope, _), (other, _) in zip(expected, found, strict=True):
        torch.testing.assert_close(slope, other, atol=1e-5, rtol=1e-4)


def test_one_search_that_meets_nan_leaves_the_others_alone(small_model):
    broken = copy.deepcopy(small_model)
    broken.model.embed_tokens.weight.data[30] = float("nan")
    first, second, _ = asking(broken)
    bad = torch.tensor([[1, 30]])
    error, (scores, _) = Merger(broken).answer([ScoreRequest(first, bad), ScoreRequest(second, CONTROLS)])
    assert isinstance(error, NotFiniteError) and torch.isfinite(scores.loss).all()
    assert first.meter.forwards == 0 and second.meter.forwards == 4
