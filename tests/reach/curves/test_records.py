import json
import math

from llmctl.reach.curves.records import CurvePair
from tests.reach.curves.build import make_pair


def test_a_record_of_the_journal_becomes_a_pair_and_keeps_its_marks():
    made = make_pair(2, 1)
    entry = made.result.to_dict(with_path=False) | {"control_tokens": ["<7>"], "rechecks": {"vllm": False}}
    read = CurvePair.from_dict(json.loads(json.dumps(entry)))
    assert read.result == made.result and read.control_tokens == ("<7>",) and read.rechecks == {"vllm": False}
    assert (read.pair().id, read.pair().k, read.pair().state) == ("2/0", 1, "2 1")


def test_a_record_without_marks_has_none_and_a_loss_of_nan_is_none():
    made = make_pair(0, None, base_loss=math.nan)
    read = CurvePair.from_dict(made.result.to_dict(with_path=False))
    assert read.rechecks == {} and read.base_loss is None and read.loss is None
    assert read.pair().base_loss is None
