"""The estimate of a run's work, counted by hand."""

from llmctl.rise.estimate import estimate_work
from llmctl.rise.recipe import RiseRecipe

RECIPE = {
    "iterations": 2,
    "collect": {"problems": 7, "turns": 2, "samples": 4},
    "evaluate": {"problems": 5, "parallel": 4, "turns": 3, "sampling": {"max_tokens": 100}},
    "sampling": {"max_tokens": 10},
    "train": {"epochs": 3},
}


def estimate(**changes):
    return estimate_work(RiseRecipe.model_validate(RECIPE | changes))


def test_samples_and_tokens_are_counted_by_hand():
    work = estimate()
    samples = 5 * (4 + 3 - 1)  # the first turn is one of the parallel samples
    assert work["samples per evaluation, at most"] == samples
    assert work["samples per collection, at most"] == 7 * 2 * 4
    assert work["training rows per iteration, at most"] == 7 * 2
    assert work["epochs over these rows"] == 3
    expected = work["evaluations"] * samples * 100 + 2 * (7 * 2 * 4) * 10
    assert work["new tokens sampled, at most"] == expected


def test_an_evaluation_after_each_iteration_adds_those_in_between():
    plain = estimate(evaluate=RECIPE["evaluate"] | {"each_iteration": False})
    each = estimate(evaluate=RECIPE["evaluate"] | {"each_iteration": True})
    assert (plain["evaluations"], each["evaluations"]) == (2, 3)


def test_without_iterations_only_the_base_model_is_evaluated():
    work = estimate(iterations=0)
    assert work["evaluations"] == 1
    assert work["new tokens sampled, at most"] == work["samples per evaluation, at most"] * 100


def test_a_teacher_adds_its_samples_to_every_state():
    work = estimate(
        collect=RECIPE["collect"] | {"improve": ["teacher"], "teacher": {"model": "m", "samples": 2}}
    )
    assert work["samples per collection, at most"] == 7 * 2 * (4 + 2)
