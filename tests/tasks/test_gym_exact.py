"""No reasoning-gym data set may count a wrong answer as right."""

import pytest

from llmctl.tasks import get_task
from llmctl.tasks.gym_exact import ANSWER_FORMS, EXACT_SCORERS
from llmctl.tasks.types import Problem

pytest.importorskip("reasoning_gym")

NONSENSE = ("banana", "0", "1", "-1", "[]", "{}", "None", "yes", "no", "True", "x", "A", "0 0", "...")
# Their one right answer is not in the problem, so that the answers of other problems may be right as well.
MANY_ANSWERS = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")


def differs(answer, reference):
    try:
        return float(answer) != float(reference)
    except ValueError:
        return answer.casefold() != reference.casefold()


def data_sets():
    from llmctl.tasks.gym import dataset_names

    return [name for name in dataset_names() if name != "composite"]


def own_score(name, problems):
    """The score of an answer without the sandbox: these answers are harmless."""
    from llmctl.tasks.gym_exact import has_form
    from llmctl.tasks.gym_scoring import SUCCESS, make_dataset, own_scorer

    dataset = make_dataset(name, {"seed": 0, "size": 1})

    def is_right(problem, answer):
        entry = {"question": problem.prompt, "answer": problem.answer, "metadata": dict(problem.meta)}
        if not has_form(answer, name):
            return False
        try:
            own = own_scorer(name)
            score = own(answer, entry) if own else dataset.score_answer(answer=answer, entry=entry)
        except Exception:  # the sandbox reads it as no verdict
            return False
        return score >= SUCCESS

    return is_right


@pytest.mark.slow
@pytest.mark.parametrize("name", data_sets())
def test_no_data_set_accepts_wrong_answers(name):
    problems = list(get_task(f"gym:{name}").problems("train", limit=4))
    is_right = own_score(name, problems)
    for problem in problems:
        others = [p.answer for p in problems if name not in MANY_ANSWERS]
        for wrong in (*NONSENSE, *others):
            if differs(wrong, problem.answer):
                assert not is_right(problem, wrong), (problem.prompt[:200], problem.answer, wrong)
        if name not in MANY_ANSWERS:
            assert is_right(problem, problem.answer)


@pytest.mark.parametrize("name", [*EXACT_SCORERS, *ANSWER_FORMS])
def test_data_sets_whose_scorer_was_too_kind_accept_the_reference_alone(name):
    problems = list(get_task(f"gym:{name}").problems("train", limit=3))
    is_right = own_score(name, problems)
    for problem in problems:
        assert is_right(problem, problem.answer)
        wrong = [*NONSENSE, f"{problem.answer} banana", *(p.answer for p in problems)]
        accepted = [
            answer for answer in wrong if differs(answer, problem.answer) and is_right(problem, answer)
        ]
        assert accepted == []


@pytest.mark.parametrize(
    ("name", "answer", "meta", "right", "wrong"),
    [
        ("game_of_life_halting", "False", {}, "<answer>false</answer>", "<answer>banana</answer>"),
        (
            "coin_flip",
            "0.00003051",
            {"rational": {"numerator": 1, "denominator": 32768}},
            "<answer>1/32768</answer>",
            "<answer>0</answer>",
        ),
        ("time_intervals", "00:34:28", {}, "<answer>0:34:28</answer>", "<answer>00:34:29</answer>"),
        ("time_intervals", "93 days", {}, "<answer>93</answer>", "<answer>94 days</answer>"),
        (
            "time_intervals",
            "2 days, 01:02",
            {},
            "<answer>2 days, 01:02:00</answer>",
            "<answer>01:02</answer>",
        ),
        ("spell_backward", "ainomma", {}, "<answer>ainomma</answer>", "<answer>ainomma0</answer>"),
    ],
)
def test_answers_are_compared_exactly(name, answer, meta, right, wrong):
    task = get_task(f"gym:{name}")
    problem = Problem("id", "?", answer, meta={"source_dataset": name, **meta})
    assert task.check(problem, right).is_correct
    assert not task.check(problem, wrong).is_correct
