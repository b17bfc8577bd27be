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


def test_easy_targets_get_more_of_the_short_controls_and_less_of_the_longest():
    easy, hard = (work(schedules.default(4, loss)) for loss in (1.0, 12.0))
    assert all(easy[k] > hard[k] for k in (1, 2, 3))
    assert easy[4] < hard[4]


def test_effort_multiplies_the_work():
    once, twice = (sum(work(schedules.default(4, 12.0, effort=e)).values()) for e in (1, 2))
    assert twice == pytest.approx(2 * once, rel=0.05)


def test_one_method_has_the_same_candidates_at_every_length():
    for name in ("greedy", "gcg", "random"):
        sizes = set(work(schedules.single(name, 4, candidates=32, steps=4)).values())
        assert sizes == {128}
    with pytest.raises(UserError, match="no search method 'magic'"):
        schedules.single("magic", 3)
