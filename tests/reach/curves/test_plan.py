import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.plan import planned_forwards, problem_at, problem_template, search_plan
from llmctl.reach.curves.preflight import estimate_work
from llmctl.reach.curves.recipe import CurveControlSettings, CurveRecipe, CurveSearchSettings
from llmctl.reach.search.config import Schedule


def test_each_schedule_becomes_a_plan():
    assert search_plan(CurveSearchSettings()).name == "default"
    published = search_plan(CurveSearchSettings(schedule="published"))
    assert isinstance(published, Schedule) and published.max_k == 10
    single = search_plan(CurveSearchSettings(schedule="random", max_k=3, candidates=4, steps=5))
    assert [phase.k for phase in single.phases] == [1, 2, 3]


def test_the_estimate_multiplies_candidates_and_steps():
    assert planned_forwards(CurveSearchSettings(schedule="random", max_k=3, candidates=4, steps=5)) == 60
    assert planned_forwards(CurveSearchSettings(schedule="scan", max_k=1)) == 0  # a whole vocabulary
    work = estimate_work(CurveRecipe.model_validate({"search": {"schedule": "scan", "max_k": 1}}))
    assert work["controls scored per pair, at most"] == "whole scans of the vocabulary"
    assert work["states"] == 40 and work["targets per state"] == 1


def test_a_sample_of_the_controls_is_drawn_by_seed(letters):
    rules = CurveControlSettings(sample=5)
    first, again, other = (problem_template(rules, seed, letters, 40).candidates for seed in (1, 1, 2))
    assert first == again != other and len(first) == 5
    assert problem_template(CurveControlSettings(), 1, letters, 40).candidates is None
    with pytest.raises(UserError, match="controls.sample is 50, but only 40 tokens"):
        problem_template(CurveControlSettings(sample=50), 1, letters, 40)


def test_a_slot_of_a_template_takes_the_state_as_text(letters):
    template = problem_template(CurveControlSettings(), 1, letters, 40)
    assert problem_at(template, (5, 6), letters, (7,), "1/0").state == (5, 6)
    slot = problem_template(CurveControlSettings(position="user_end"), 1, letters, 40)
    assert problem_at(slot, (5, 6), letters).state == "56"
