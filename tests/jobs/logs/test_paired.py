"""The paired difference against numbers worked out by hand, and what may be said of it."""

import math
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.jobs.logs import EvaluationLog, Scores, compare_logs, read_log
from llmctl.jobs.metrics import sign_test

MADE = Path(__file__).with_name("made_by_tools")


def log(values, task="t", metric="acc", questions=None, path="a", errors=0):
    return EvaluationLog(path, "lm-eval", "m", (Scores(task, metric, values, questions or {}, errors),))


def pairs(wins, losses, both, neither):
    """Two logs with so many discordant and concordant samples."""
    rows = [(0.0, 1.0)] * wins + [(1.0, 0.0)] * losses + [(1.0, 1.0)] * both + [(0.0, 0.0)] * neither
    first, second = ({str(i): row[side] for i, row in enumerate(rows)} for side in (0, 1))
    return log(first), log(second, path="b")


def test_difference_interval_and_tests_of_binary_scores():
    (found,) = compare_logs(*pairs(wins=10, losses=2, both=20, neither=18)).differences
    assert (found.n, found.a, found.b) == (50, 0.44, 0.6)
    assert found.value == pytest.approx(0.16)
    # Bonett and Price (2012): (11 - 3) / 52 -+ z sqrt(((11 + 3) / 52 - (8 / 52)^2) / 52)
    centre, half = 8 / 52, 1.959964 * math.sqrt((14 / 52 - (8 / 52) ** 2) / 52)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    # McNemar: 2 * (1 + 12 + 66) / 2^12
    assert found.p_exact == pytest.approx(2 * 79 / 4096)
    assert found.detectable == pytest.approx(
        (1.959964 + 0.841621) * half / 1.959964 * math.sqrt(52 / 50), rel=1e-5
    )


def test_no_discordant_pair_is_no_certainty():
    (found,) = compare_logs(*pairs(0, 0, 5, 5)).differences
    assert found.low < -0.2 < 0.2 < found.high
    assert (found.p_exact, found.verdict, found.needed) == (1.0, "not decided", None)


def test_the_interval_keeps_its_coverage_with_few_discordant_pairs():
    """Exactly, over all outcomes: 30 pairs that are discordant with chances .06 and .02."""
    n, gain, loss = 30, 0.06, 0.02
    covered = 0.0
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            rest = n - wins - losses
            ways = math.factorial(n) / math.factorial(wins) / math.factorial(losses) / math.factorial(rest)
            chance = ways * gain**wins * loss**losses * (1 - gain - loss) ** rest
            if chance > 1e-12:
                (found,) = compare_logs(*pairs(wins, losses, rest, 0)).differences
                covered += chance * (found.low <= gain - loss <= found.high)
    assert covered >= 0.95


def test_scores_that_are_not_binary_have_students_interval():
    first = log({"1": 0.0, "2": 0.5, "3": 1.0})
    second = log({"1": 0.5, "2": 1.0, "3": 0.75}, path="b")
    (found,) = compare_logs(first, second).differences
    # differences .5, .5, -.25: mean .25, deviation .4330, t(2) = 4.3027
    assert found.low == pytest.approx(0.25 - 4.302653 * 0.4330127 / math.sqrt(3), abs=1e-5)
    assert (found.wins, found.losses) == (2, 1)


def test_equal_scores_that_are_not_binary_have_no_interval():
    (found,) = compare_logs(log({"1": 0.5, "2": 0.5}), log({"1": 0.5, "2": 0.5}, path="b")).differences
    assert (found.low, found.high, found.detectable) == (None, None, None)


def test_holm_adjusts_for_all_that_is_compared():
    found = compare_logs(read_log(MADE / "inspect_ai-a.eval"), read_log(MADE / "inspect_ai-b.eval"))
    assert len(found.differences) == 2
    for one in found.differences:
        assert one.p_holm == pytest.approx(min(1.0, 2 * one.p_exact))


def test_one_metric_may_be_chosen_with_or_without_its_filter():
    first = log({"1": 1.0}, metric="exact_match,strict")
    second = log({"1": 0.0}, metric="exact_match,strict", path="b")
    for name in ("exact_match", "exact_match,strict"):
        assert len(compare_logs(first, second, name).differences) == 1
    with pytest.raises(UserError, match="share no metric 'f1': a has t/exact_match,strict"):
        compare_logs(first, second, "f1")


def test_samples_with_another_question_are_left_out_and_told_of():
    first = log({"1": 1.0, "2": 1.0, "3": 1.0}, questions={"1": "x", "2": "y", "3": "z"})
    second = log({"1": 1.0, "2": 0.0, "4": 1.0}, questions={"1": "x", "2": "other"}, path="b")
    found = compare_logs(first, second)
    assert (found.differences[0].n, found.differences[0].left_out) == (1, 3)
    assert "1 samples have the same id and another question" in found.notes[0]


def test_single_tasks_of_two_names_are_compared_and_the_names_told():
    found = compare_logs(log({"1": 1.0}, task="a"), log({"1": 1.0}, task="b", path="b"))
    assert "two names, a and b" in found.notes[0]


def test_logs_without_a_shared_sample_are_refused():
    with pytest.raises(UserError, match="share no sample"):
        compare_logs(log({"1": 1.0}), log({"2": 1.0}, path="b"))


def test_the_json_object_has_the_first_comparison_at_its_top():
    content = compare_logs(*pairs(10, 2, 20, 18)).to_dict()
    assert content["n"] == 50
    assert set(content["difference"]) == {"value", "low", "high"}
    assert {"a", "b", "p_exact", "p_holm", "detectable"} <= content.keys()
    assert content["comparisons"][0]["difference"] == content["difference"]


def test_the_sign_test_is_exact():
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == pytest.approx(2 / 32)
