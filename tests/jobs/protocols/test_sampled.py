"""Metrics of the protocols that sample, from numbers that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from llmctl.jobs.protocols.base import GroupResults, PrimaryMetric
from llmctl.jobs.protocols.parallel import pass_at, pass_sizes
from llmctl.jobs.result_groups import ResultGroup

from ..helpers import job


def results(protocol, n, **values):
    spec = job(protocols={protocol: {"n": n}}).protocols[protocol]
    arrays = {name: np.array(numbers, dtype=float) for name, numbers in values.items()}
    return GroupResults("m", "sort", protocol, spec, [ResultGroup(values=arrays)], Path("none"), 0)


def test_sizes_of_pass_are_powers_of_two_and_n():
    assert pass_sizes(1) == [1]
    assert pass_sizes(5) == [2, 4, 5]
    assert pass_sizes(8) == [2, 4, 8]


def test_pass_at_two_of_four_with_one_right_is_a_half():
    # 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6
    assert pass_at(np.array([[1.0, 0.0, 4.0]]), np.full((1, 3), 4.0), 2).tolist() == [[0.5, 0.0, 1.0]]


def test_single_has_one_metric_of_being_right_and_two_means():
    found = results("single", 5, samples=[1, 1], correct=[1, 0], first=[1, 0], reward=[1, 0], tokens=[2, 4])
    metrics = found.spec.definition.metrics(found)
    assert list(metrics) == ["m1_t1", "reward", "tokens"]
    assert (metrics["m1_t1"].value, metrics["tokens"].value) == (0.5, 3.0)
    assert found.spec.samples == 1
    assert found.spec.definition.primary(found.spec) == PrimaryMetric("m1_t1", "first")


def test_parallel_votes_over_n_samples():
    found = results("parallel", 3, samples=[3, 3], correct=[2, 0], vote=[1, 0], reward=[2, 0], tokens=[6, 6])
    metrics = found.spec.definition.metrics(found)
    assert list(metrics) == ["m1_t1", "m3_t1", "pass_2", "pass_3", "reward", "tokens"]
    assert metrics["m1_t1"].value == pytest.approx(2 / 6)
    assert metrics["m3_t1"].value == 0.5 and found.spec.samples == 3


def test_sequential_compares_turns_with_votes_of_as_many_samples():
    found = results(
        "sequential",
        3,
        samples=[3, 3],
        first=[0, 0],
        vote=[1, 0],
        any=[1, 1],
        last=[1, 0],
        reward=[2, 1],
        tokens=[6, 6],
    )
    definition = found.spec.definition
    metrics = definition.metrics(found)
    assert list(metrics) == ["m1_t1", "m1_t3", "p1_t3", "last_turn", "reward", "tokens"]
    assert [metrics[name].value for name in ("m1_t1", "m1_t3", "p1_t3")] == [0.0, 0.5, 1.0]
    assert definition.equal_compute == "parallel"
    assert set(definition.group_facts(found)["flows"].values()) == {0}
