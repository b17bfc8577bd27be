"""From the journal of the scores to metrics and sentences, with numbers made by hand."""

from types import SimpleNamespace

import pytest

from llmctl.reach.universal import metrics as module
from llmctl.reach.universal.data import PairData, TextPair
from llmctl.reach.universal.evaluation import Evaluation
from llmctl.reach.universal.metrics import compute_metrics
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import (
    CONTROL,
    NO_CONTROL,
    cost_table,
    gain_table,
    score_table,
    sentences,
    token_table,
)
from llmctl.reach.universal.result import UniversalStep

STEP = UniversalStep("gcg", 2, 2, (5, 6), 0.5, 1, (5, 6), 0.5, 2, 0, 0.4, 10, 100, 40)
JOURNAL = {
    "tokens": {"whole": "xy", "each": ["x", "y"]},
    f"{NO_CONTROL}/train": {"losses": [2.0, 3.0, 4.0], "matches": [0.0, 0.0, 0.0]},
    f"{NO_CONTROL}/held_out": {"losses": [2.0, 3.0], "matches": [0.0, 0.0]},
    f"{CONTROL}/train": {"losses": [0.5, 0.6, 0.7], "matches": [1.0, 0.0, 1.0]},
    f"{CONTROL}/held_out": {"losses": [0.5, 0.9], "matches": [1.0, 0.0]},
    "by hand: 'a/b'/train": {"losses": [1.0, 1.0, 1.0], "matches": [0.0, 0.5, 0.0]},
    "by hand: 'a/b'/held_out": {"losses": [1.0, 1.0], "matches": [0.0, 0.5]},
    "without each/train": [1.5, 0.6],
    "without each/held_out": [1.7, 0.7],
    "as text/train": [[True, True, False], [True, False, False]],
    "as text/held_out": [[True, True], [True, False]],
}
RECIPE = OptimizeRecipe.model_validate({"data": {"path": "p"}, "control": {"k": 2}})


@pytest.fixture
def metrics(monkeypatch):
    monkeypatch.setattr(module, "seconds_by_phase", lambda run: {"search-gcg": 1.25})
    data = PairData((TextPair("a", "b"),) * 3, (TextPair("c", "d"),) * 2, 1)
    found = Evaluation.from_journal(JOURNAL)
    return compute_metrics(SimpleNamespace(), RECIPE, data, {"gcg": [STEP]}, found)


def test_the_journal_becomes_a_record():
    found = Evaluation.from_journal(JOURNAL)
    assert found.text == "xy" and found.token_texts == ("x", "y")
    assert list(found.scores) == [NO_CONTROL, CONTROL, "by hand: 'a/b'"]
    assert found.loss_without["train"] == (1.5, 0.6)
    assert found.as_text["train"].is_same == (True, True, False)


def test_metrics_hold_scores_gains_and_the_control(metrics):
    assert metrics["scores"][CONTROL]["train"]["loss"].value == pytest.approx(0.6)
    assert metrics["gain"][NO_CONTROL]["held_out"]["loss"].value == pytest.approx(1.8)
    assert metrics["control"]["roundtrips"]["train"].value == pytest.approx(2 / 3)
    assert metrics["control"]["tokens"][1] == {
        "id": 6,
        "text": "y",
        "loss_without": {"train": 0.6, "held_out": 0.7},
    }
    assert metrics["search"] == {
        "gcg": {
            "steps": 2,
            "loss": 0.5,
            "matches": 1,
            "forwards": 10,
            "forward_tokens": 100,
            "backward_tokens": 40,
        }
    }
    assert metrics["seconds"] == {"search-gcg": 1.2} and metrics["data"]["repeats"] == 1


def test_tables_and_sentences_show_them(metrics):
    said = "\n".join(sentences(RECIPE, metrics))
    assert "has a lower loss than no control" in said and "1 of 3 train prompts change" in said
    assert "1 rows were left out" in said
    assert [row[0] for row in score_table(RECIPE, metrics).rows][1] == "control (search gcg)"
    assert [row[0] for row in gain_table(metrics).rows] == [NO_CONTROL, "by hand: 'a/b'"]
    assert [row[5] for row in token_table(metrics).rows] == ["+0.900", "+0.000"]
    assert cost_table(metrics).rows[0][:2] == ["gcg", 2]
