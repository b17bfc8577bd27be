import inspect
import re
import sys

import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task
from llmctl.tasks.gym_scoring import EVALUATING, OWN_SCORERS
from llmctl.tasks.types import Problem

pytest.importorskip("reasoning_gym")


def first(name, **options):
    task = get_task(name, **options)
    return task, next(iter(task))


@pytest.mark.parametrize(
    "form", ["<answer>{}</answer>", "{}", "The answer is {}.", "\\boxed{{{}}}", "1 + 1 = {}", "${}.00"]
)
def test_a_number_is_read_tagged_or_plain(form):
    task, problem = first("gym:chain_sum")
    assert task.check(problem, form.format(problem.answer)).is_correct
    assert not task.check(problem, form.format(int(problem.answer) + 1)).is_correct


def test_options_reach_the_data_set():
    _, problem = first("gym:chain_sum", min_terms=7, max_terms=7)
    assert len(re.findall(r"\d+", problem.prompt)) == 7


def test_splits_are_disjoint_and_ids_unique():
    task = get_task("gym:chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    train = {p.prompt: p.id for p in task.problems("train", limit=40)}
    test = {p.prompt: p.id for p in task.problems("test", limit=10, seed=7)}
    assert len(set(train.values())) == 40 and not set(train) & set(test)


def test_used_up_problems_are_told():
    task = get_task("gym:chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    with pytest.raises(UserError, match="no further test problems with these options"):
        list(task.problems("test", limit=1000))


def test_any_expression_that_uses_the_numbers_and_reaches_the_target_is_right():
    meta = {"numbers": [6, 61, 94, 4], "target": 309, "source_dataset": "countdown"}
    task = get_task("gym:countdown")
    problem = Problem("id", "Make 309", "94*4 - 61 - 6", meta=meta)
    for reply, right in {
        "<answer>4*94 - 6 - 61</answer>": True,
        "<answer>309</answer>": False,  # uses none of the numbers
        "<answer>94*4 - 61 - 6 + 6 - 6</answer>": False,  # uses one twice
        "<answer>94*4 - 61 + 6</answer>": False,
        "<answer>__import__('os').getpid()</answer>": False,
    }.items():
        assert task.check(problem, reply).is_correct is right, reply


def test_a_part_of_a_score_is_not_success():
    task, problem = first("gym:word_sorting")  # it gives 0.2 for the right words in a wrong order
    words = [word.strip() for word in problem.answer.split(",")]
    assert task.check(problem, problem.answer).is_correct
    assert not task.check(problem, f"<answer>{', '.join(reversed(words))}</answer>").is_correct


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["polynomial_multiplication", "simple_integration", "intermediate_integration"]
)
def test_other_forms_of_a_formula_are_right(name):
    task, problem = first(f"gym:{name}")
    assert task.check(problem, f"<answer>0 + ({problem.answer})</answer>").is_correct
    assert not task.check(problem, f"<answer>x + {problem.answer}</answer>").is_correct
    assert not task.check(problem, "<answer>9**9**9</answer>").is_correct
    assert not task.check(problem, "<answer>eval('1')</answer>").is_correct


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALUATING)
def test_an_answer_is_not_run_by_the_data_sets_own_scorer(name, tmp_path):
    task, problem = first(f"gym:{name}")
    trap = tmp_path / "trap"
    assert not task.check(problem, f"<answer>open({str(trap)!r}, 'w')</answer>").is_correct
    assert not trap.exists()


@pytest.mark.slow
def test_a_composite_takes_plain_mappings():
    parts = [{"name": "chain_sum", "weight": 1.0, "config": {"max_terms": 3}}, {"name": "countdown"}]
    task = get_task("gym:composite", datasets=parts)
    problems = list(task.problems("train", limit=8))
    assert {problem.meta["source_dataset"] for problem in problems} == {"chain_sum", "countdown"}
    assert all(task.check(problem, problem.solution).is_correct for problem in problems)


def test_every_scorer_that_evaluates_text_is_known():
    """A new release may bring another; the sandbox would refuse it, and its data set could not be scored."""
    from reasoning_gym.factory import DATASETS

    evaluates = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
    found = {
        name
        for name, (dataset, _) in DATASETS.items()
        if evaluates.search(inspect.getsource(dataset.score_answer))
    }
    verifies = sys.modules[DATASETS["bitwise_arithmetic"][0].__module__].verify_solution
    assert evaluates.search(inspect.getsource(verifies))
    number_sorting = {"number_sorting"}  # evaluates the reference answer, and only where that is no JSON
    assert found | {"bitwise_arithmetic"} == {*OWN_SCORERS, *EVALUATING} | number_sorting


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gym:chan_sum", {}, "no reasoning-gym data set 'chan_sum'; the nearest is 'chain_sum'"),
        ("gym:chain_sum", {"min_term": 2}, "no option 'min_term'; the nearest is 'min_terms'"),
        ("gym:chain_sum", {"min_terms": 9}, "options that it cannot use .*max_terms must be"),
        ("gym:chain_sum", {"size": 0}, "size 0"),
        ("gym:chain_sum", {"path": "x"}, "its problems are generated: leave path out"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        get_task(name, **options)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match="pip install reasoning-gym"):
        get_task("gym:chain_sum")
