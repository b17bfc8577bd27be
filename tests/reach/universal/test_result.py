import json

from llmctl.reach.universal.result import Optimized, PairScores, UniversalStep

STEP = UniversalStep("gcg", 2, 1, (5,), 1.5, 1, (6,), 1.7, 2, 0, 1.4, 10, 100, 40)
SCORES = PairScores((1.0, 3.0), (1.0, 0.0))


def test_a_step_comes_back_from_a_line_of_its_journal():
    line = {"key": "step-2", **json.loads(json.dumps(STEP.to_dict()))}
    assert UniversalStep.from_dict(line) == STEP and STEP.tokens == 140


def test_scores_are_means_over_the_pairs():
    assert (SCORES.loss, SCORES.match_rate) == (2.0, 0.5)
    assert PairScores.from_dict(json.loads(json.dumps(SCORES.to_dict()))) == SCORES


def test_a_result_is_json_with_and_without_its_path():
    found = Optimized((5,), "x", "gcg", SCORES, None, SCORES, None, 10, 100, 40, path=(STEP,))
    entry = json.loads(json.dumps(found.to_dict()))
    assert entry["k"] == 1 and entry["path"][0]["control_ids"] == [5] and entry["held_out"] is None
    assert "path" not in found.to_dict(with_path=False)
