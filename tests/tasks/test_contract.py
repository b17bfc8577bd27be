"""What every built-in task owes, checked on each of them."""

import json
import pickle
from itertools import islice

import pytest

from llmctl.errors import UserError
from llmctl.tasks import Task, get_task, list_tasks

from .samples import HOSTILE

# The last word of a conversation-ending reply that is readable and wrong for every problem of the task.
WRONG = {
    "sort": "99 98",
    "letters": "z y",
    "math": "\\boxed{x^9+987}",
    "gym:word_sorting": "<answer>zz, aa</answer>",
}
NAMES = (
    "sort",
    "letters",
    "gsm8k",
    "svamp",
    "math",
    "jsonl",
    "gym:chain_sum",
    "gym:countdown",
    "gym:word_sorting",
)


@pytest.fixture(scope="module", params=NAMES)
def task(request, data_folder):
    pytest.importorskip("reasoning_gym") if request.param.startswith("gym:") else None
    path = data_folder / f"{request.param}.jsonl"
    options = {"path": path} if path.exists() else {"size": 20}
    task = get_task(request.param, **options)
    task.warm_up()
    return task


def test_every_task_of_the_list_is_covered():
    listed = {info.name.split(":")[0] for info in list_tasks()} - {"python"}
    assert listed == {name.split(":")[0] for name in NAMES}


def test_it_is_a_task(task):
    assert isinstance(task, Task)
    assert task.name in NAMES


def test_solutions_are_right_and_carry_the_voting_key_of_the_bare_answer(task):
    for problem in task.problems("train", limit=20):
        feedback = task.check(problem, problem.solution)
        assert (feedback.reward, feedback.is_correct) == (1.0, True), problem
        assert feedback.answer
        assert feedback.message == "That is correct."


def test_a_wrong_answer_says_only_that_it_is_wrong(task):
    for problem in task.problems("train", limit=5):
        feedback = task.check(problem, WRONG.get(task.name, "\\boxed{987654}"))
        assert (feedback.reward, feedback.is_correct) == (0.0, False), problem
        assert feedback.message == "That is not correct."
        assert problem.answer not in feedback.message


def test_an_unreadable_reply_says_in_what_form_an_answer_is_wanted(task):
    problem = next(iter(task))
    feedback = task.check(problem, "  \n ")
    assert (feedback.reward, feedback.is_correct, feedback.answer) == (-1.0, False, None)
    assert feedback.message.startswith("No answer could be read: ")
    assert len(feedback.message) > 35


def test_order_is_fixed_by_the_seed_and_limit_is_a_prefix(task):
    first = list(task.problems("train", limit=4, seed=3))
    assert first == list(task.problems("train", limit=4, seed=3))
    assert first[:2] == list(task.problems("train", limit=2, seed=3))
    assert list(task.problems("train", limit=0)) == []


def test_ids_are_unique_and_problems_are_lazy(task):
    ids = [problem.id for problem in task.problems("train", limit=30)]
    assert len(ids) == len(set(ids)) >= 2
    assert len(list(islice(iter(task), 2))) == 2


def test_its_length_is_that_of_the_default_split(task):
    assert len(task) == sum(1 for _ in task)


def test_the_conversation_ends_with_the_problem(task):
    problem = next(iter(task))
    messages = task.conversation(problem)
    assert messages[0]["role"] == "system"
    assert messages[-1] == {"role": "user", "content": problem.prompt}
    assert json.loads(json.dumps(messages)) == messages


def test_problems_travel_between_processes(task):
    problem = next(iter(task))
    assert pickle.loads(pickle.dumps(problem)) == problem


def test_a_negative_limit_is_refused(task):
    with pytest.raises(UserError, match="limit is -1"):
        task.problems("train", limit=-1)


@pytest.mark.timeout(120)  # what must not hang
def test_hostile_replies_are_never_right_never_raise_and_never_hang(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = next(iter(task))
    for name, text in HOSTILE.items():
        feedback = task.check(problem, text)
        assert not feedback.is_correct, name
        if feedback.answer is not None:
            json.dumps(feedback.answer)
    assert not list(tmp_path.iterdir())
