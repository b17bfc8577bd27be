import math
import random

import numpy as np
import pytest

from llmctl.jobs.metrics import compare, holm, sign_test
from llmctl.jobs.records import ResultRow, Shard
from llmctl.jobs.result_groups import read_result_groups
from llmctl.jobs.results import encode_part, read_groups, write_results
from llmctl.jobs.show import all_tables
from llmctl.jobs.summary import summarize_results
from llmctl.rise import metrics
from llmctl.rise.records import Evaluation, Turn
from llmctl.runs import wilson

from .helpers import job, rows, start


def write(path, problems, *, model="base", protocol="parallel", seed=0, group=None):
    """A results file of one cell from lists of (answer, is_correct), in row groups of `group` problems."""
    tables = []
    size = group or len(problems)
    for start_at in range(0, len(problems), size):
        found = [
            ResultRow(f"p{number}", sample, 1, "text", float(right), 2, right, answer, None)
            for number, samples in enumerate(problems[start_at : start_at + size], start_at)
            for sample, (answer, right) in enumerate(samples)
        ]
        data = encode_part(Shard(model, "sort", protocol, seed, 0, 1), None, found)
        (path.parent / "part").write_bytes(data)
        tables += read_groups(path.parent / "part", [field for field in _names()])
    write_results(path, tables)
    return path


def _names():
    from llmctl.jobs.results import COLUMNS

    return COLUMNS


def test_votes_are_those_of_rise_whatever_the_row_groups(tmp_path):
    draw = random.Random(1)
    kinds = [("right", True), ("a", False), ("b", False), (None, False)]
    problems = [[draw.choice(kinds) for _ in range(draw.randint(1, 6))] for _ in range(200)]
    expected = [
        metrics.vote([Turn("", float(r), r, a, "", 0, None) for a, r in samples]) for samples in problems
    ]
    for group in (200, 7):
        (cell,) = read_result_groups(write(tmp_path / "r.parquet", problems, group=group)).values()
        assert cell.values["vote"].tolist() == pytest.approx(expected)
        assert cell.values["correct"].tolist() == [sum(r for _, r in samples) for samples in problems]
        assert cell.total("unreadable") == sum(a is None for samples in problems for a, _ in samples)
        assert cell.count == 200


def test_a_vote_without_readable_answers_is_wrong(tmp_path):
    (cell,) = read_result_groups(write(tmp_path / "r.parquet", [[(None, False)] * 3] * 2)).values()
    assert cell.values["vote"].tolist() == [0, 0]
    assert cell.total("unreadable") == 6


def test_figures_of_a_job_are_those_of_rise(tmp_path):
    start(tmp_path / "job", job(limit=40))
    found = rows(tmp_path / "job")
    by = {}
    for row in found:
        by.setdefault((row["protocol"], row["problem"]), []).append(row)
    names = dict.fromkeys(row["problem"] for row in found)
    records = [
        Evaluation.from_dict(
            {
                "problem": name,
                "gold": "",
                "parallel": by[("parallel", name)],
                "turns": by[("sequential", name)],
            }
        )
        for name in names
    ]
    rise = metrics.summarize(records)
    summary = summarize_results(tmp_path / "job" / "results.parquet", job(limit=40))
    figures = {entry["protocol"]: entry["figures"] for entry in summary["figures"]}
    assert figures["parallel"]["m1_t1"]["value"] == pytest.approx(rise["m1_t1"].value)
    assert figures["parallel"]["m3_t1"]["value"] == pytest.approx(rise["m3_t1"].value)
    assert figures["parallel"]["pass_2"]["value"] == pytest.approx(rise["pass_2"].value)
    assert figures["sequential"]["m1_t3"]["value"] == pytest.approx(rise["m1_t3"].value)
    assert figures["sequential"]["p1_t3"] == rise["p1_t3"].to_dict()
    (gain,) = summary["equal_compute"]
    assert gain["difference"] == rise["compute_matched_gain"].to_dict()
    (sequential,) = (entry for entry in summary["figures"] if entry["protocol"] == "sequential")
    flows = rise["turns"][1:]
    assert sequential["flows"] == {name: sum(turn[name] for turn in flows) for name in sequential["flows"]}


def test_samples_of_a_problem_are_no_independent_trials(tmp_path):
    recipe = job(protocols={"parallel": {"n": 8}})
    alike = [[("x", number % 2 == 0)] * 8 for number in range(20)]
    mixed = [[("x", sample % 2 == 0) for sample in range(8)] for _ in range(20)]
    widths = []
    for problems in (alike, mixed):
        summary = summarize_results(write(tmp_path / "r.parquet", problems), recipe)
        figure = summary["figures"][0]["figures"]["m1_t1"]
        assert (figure["value"], figure["n"], figure["clusters"]) == (0.5, 160, 20)
        widths.append(figure["high"] - figure["low"])
    assert widths[0] > 2 * widths[1]


def test_one_sample_a_problem_has_wilsons_interval(tmp_path):
    problems = [[("x", number < 3)] for number in range(20)]
    recipe = job(protocols=["single"])
    summary = summarize_results(write(tmp_path / "r.parquet", problems, protocol="single"), recipe)
    assert summary["figures"][0]["figures"]["m1_t1"] == wilson(3, 20).to_dict()


def test_mcnemar_on_a_table_of_four():
    # 9 discordant pairs, 1 against 8: p = 2 (C(9,0) + C(9,1)) / 2^9
    first = np.array([[1.0] * 1 + [0.0] * 8 + [1.0] * 11])
    second = np.array([[0.0] * 1 + [1.0] * 8 + [1.0] * 11])
    found = compare(first, second)
    assert (found.wins, found.losses, found.ties) == (8, 1, 11)
    assert found.p_value == pytest.approx(20 / 512)
    assert found.test == "McNemar's exact test"
    assert found.difference.value == pytest.approx(7 / 20)


def test_the_sign_test_is_exact():
    for wins, losses in ((0, 0), (3, 3), (0, 5), (12, 4)):
        n, k = wins + losses, min(wins, losses)
        expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
        assert sign_test(wins, losses) == pytest.approx(expected)
    assert sign_test(1_000_000, 999_000) == pytest.approx(0.4796, abs=0.001)  # normal: z = 0.707


def test_holms_adjustment_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_models_that_never_differ_have_no_interval():
    same = np.array([[1.0, 0.0, 1.0]])
    found = compare(same, same)
    assert (found.difference.value, found.difference.low, found.p_value) == (0, None, 1)


def test_a_better_model_is_found_better_and_everything_can_be_shown(tmp_path):
    (tmp_path / "adapter").mkdir()
    models = {
        "base": {"model": "m", "engine": "server"},
        "tuned": {"model": "m", "engine": "server", "adapter": str(tmp_path / "adapter")},
    }
    recipe = job(models=models, limit=40, seeds=[0, 1])
    summary = start(tmp_path / "job", recipe).summary
    single = next(entry for entry in summary["comparisons"] if entry["protocol"] == "single")
    assert (single["first"], single["second"]) == ("base", "tuned")
    assert single["difference"]["low"] > 0.3
    assert single["p_value"] < single["p_holm"] < 1e-4
    assert single["test"] == "sign test over problems"  # two seeds: a problem may be half right
    text = "\n".join(table.to_markdown() for table in all_tables(summary))
    assert "tuned - base" in text and "gain at equal compute" in text


def test_many_problems_have_an_interval_without_a_bootstrap():
    from llmctl.jobs.metrics import MANY_UNITS, mean_estimate

    values = np.random.default_rng(0).normal(2.0, 1.0, MANY_UNITS + 1)
    by_formula, by_bootstrap = mean_estimate(values), mean_estimate(values[:-1])
    assert by_formula.low == pytest.approx(by_bootstrap.low, abs=2e-3)
    assert by_formula.high == pytest.approx(by_bootstrap.high, abs=2e-3)
