"""The journal of seconds: one line per unit, whatever is done again."""

from types import SimpleNamespace

import pytest

from llmctl.runs import Recipe, Run, timing


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", Recipe(), "a test") as run:
        yield run


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_a_block_is_recorded_once_under_its_key(run, clock):
    for seconds in (2.0, 50.0):  # the second one is done again after a kill
        with timing.timed(run, "collect-1/chunk-0"):
            clock.now += seconds
    assert list(run.journal("timing")) == [{"key": "collect-1/chunk-0", "seconds": 2.0}]


def test_a_block_that_fails_is_not_recorded(run, clock):
    with pytest.raises(ZeroDivisionError), timing.timed(run, "collect-1/chunk-0"):
        raise ZeroDivisionError
    assert len(run.journal("timing")) == 0


def test_seconds_are_summed_by_phase(run, clock):
    for unit, seconds in (("a/1", 1.0), ("a/2/x", 2.0), ("b", 4.0)):
        clock.now = seconds
        timing.record_seconds(run, unit, 0.0)
    assert timing.seconds_by_phase(run) == {"a": 3.0, "b": 4.0}
    assert timing.total_seconds(run) == 7.0
