import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, LoneRequest, ScoreRequest
from llmctl.reach.scoring.records import ControlScores
from llmctl.reach.scoring.scorer import Scorer

LAYOUT = Layout((), (5, 17, 3), (9,), (5, 17, 3))
SCORES = ControlScores(torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.zeros(1))


def test_every_call_becomes_a_request_and_runs_nothing(small_model):
    asked = []

    def answer(request):
        asked.append(request)
        if isinstance(request, LoneRequest):
            return True
        return (torch.zeros(2, 40), 1.5) if isinstance(request, GradientRequest) else (SCORES, 4)

    scorer = AskingScorer(small_model, LAYOUT, answer)
    assert scorer.score(torch.tensor([[1, 2]])) is SCORES
    assert scorer.base() == (4, SCORES)
    assert scorer.gradient(torch.tensor([1, 2]))[1] == 1.5
    assert scorer.emits([1, 5, 17, 3]) is True
    assert [type(request) for request in asked] == [ScoreRequest, ScoreRequest, GradientRequest, LoneRequest]
    assert asked[1].controls.shape == (1, 0)
    assert vars(scorer.meter) == {"forwards": 0, "forward_tokens": 0, "backward_tokens": 0}


def test_a_lone_check_runs_as_a_scorer_does_and_is_counted(small_model):
    scorer = AskingScorer(small_model, LAYOUT, lambda request: request.run())
    alone = Scorer(small_model, LAYOUT)
    prompt = LAYOUT.prompt([1])
    assert scorer.emits(prompt) == alone.emits(prompt)
    assert scorer.meter == alone.meter and scorer.meter.forward_tokens == 4
