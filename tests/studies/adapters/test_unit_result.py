"""Results of units: the keys of a journal line, and lines of finished runs."""

import json

import pytest

from llmctl.studies.adapters.unit_result import LossSums, TaskAccuracy, TrainingRecord, UnitResult

TRAINING = TrainingRecord(
    (2.0, 1.0), steps=2, rows=8, dropped_rows=0, tokens=90, seconds=0.5, curve=((1, 1.5),)
)
SUMS = LossSums((3.0, 1.0), (2, 2))
TRAINED = UnitResult(SUMS, SUMS, 1.0, 1.0, TaskAccuracy((True, False), 0.5), 9000, 0.1, None, TRAINING)
BASE = UnitResult(SUMS, SUMS, 1.0, 1.0, None, 0, None, None, None)


@pytest.mark.parametrize("result", [TRAINED, BASE])
def test_a_result_survives_its_line_in_the_journal(result):
    assert UnitResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_a_line_has_the_keys_that_it_always_had():
    base = ["validation", "fit", "validation_loss", "train_loss", "accuracy", "trainable_parameters"]
    base += ["seconds_per_step", "peak_memory"]
    trained = ["losses", "steps", "rows", "dropped_rows", "tokens", "seconds", "curve"]
    assert set(BASE.to_dict()) == set(base)
    assert set(TRAINED.to_dict()) == {*base, *trained}
    assert TRAINED.to_dict()["accuracy"] == {"right": (True, False), "value": 0.5}


def test_the_first_rows_of_losses():
    assert SUMS.first(1) == LossSums((3.0,), (2,))
