"""The figures of the report show the numbers that the metrics hold."""

import pytest

from llmctl.rise.metric_names import MetricNames
from llmctl.rise.metrics import summarize
from llmctl.rise.plots import draw_accuracy, draw_flows

from .helpers import record

BEFORE = [record("RWW", "WRW", "1"), record("WWW", "RWW", "2")]
AFTER = [record("RRR", "RRR", "1"), record("WRW", "WWW", "2")]


@pytest.fixture
def metrics():
    return {"before": summarize(BEFORE), "after": summarize(AFTER)}


def test_each_stage_is_a_line_of_accuracies_with_its_vote(metrics):
    (axes,) = draw_accuracy(metrics, MetricNames(3, 3)).axes
    assert axes.get_legend_handles_labels()[1] == ["before", "after"]
    before = axes.containers[0].lines[0].get_ydata().tolist()
    assert before == [turn["accuracy"].value for turn in metrics["before"]["turns"]]
    votes = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert votes == [metrics[stage]["m3_t1"].value for stage in ("before", "after")]


def test_bars_of_a_turn_add_up_to_all_problems(metrics):
    figure = draw_flows(metrics)
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    for axes in figure.axes:
        heights = [sum(bar.get_height() for bar in bars) for bars in zip(*axes.containers, strict=True)]
        assert heights == [2, 2]  # two problems, and two steps from one turn to the next


def test_a_run_without_training_has_one_stage():
    metrics = {"before": summarize(BEFORE)}
    assert len(draw_flows(metrics).axes) == 1
    (axes,) = draw_accuracy(metrics, MetricNames(3, 3)).axes
    assert axes.get_legend_handles_labels()[1] == ["before"]
