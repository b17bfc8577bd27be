import pytest

from llmctl.errors import UserError
from llmctl.reach.search import schedule as schedules


def work(schedule):
    """Candidates by control length."""
    return {phase.k: phase.candidates * phase.steps for phase in schedule.phases}


def test_the_published_schedule_is_that_of_the_paper():
    phases = schedules.published().phases
    assert [(phase.method, phase.k) for phase in phases] == [
        *(("greedy", k) for k in (1, 2, 3)),
        *(("gcg", k) for k in (4, 6, 8, 10)),
    ]
    assert all((p.top_k, p.candidates, p.steps) == (128, 768, 34) for p in phases if p.method == "gcg")
    assert all(p.candidates == 0 for p in phases if p.method == "greedy")  # the whole vocabulary
    assert not any(p.stop_early or p.keep_best or p.ordered for p in phases)


def test_a_control_length_gets_the_same_phases_whatever_the_longest_is():
    short, long = (schedules.default(max_k).phases for max_k in (4, 10))
    assert long[: len(short)] == short
    assert [phase.k for phase in short if phase.method == "gcg"] == [1, 2, 3, 4]


@pytest.mark.parametrize("effort", [0.25, 2, 8])
def test_effort_multiplies_the_work_at_every_length(effort):
    once, more = (gradient_work(schedules.default(4, effort=e)) for e in (1, effort))
    assert more == {k: effort * once[k] for k in once}


def gradient_work(schedule):
    return {p.k: p.candidates * p.steps for p in schedule.phases if p.method == "gcg"}


def test_one_method_has_the_same_candidates_at_every_length():
    for name in ("greedy", "gcg", "random"):
        sizes = set(work(schedules.single(name, 4, candidates=32, steps=4)).values())
        assert sizes == {128}
    with pytest.raises(UserError, match="no search method 'magic'"):
        schedules.single("magic", 3)
