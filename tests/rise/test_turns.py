"""Attempts, repeats, degenerate responses, and the conversation that asks for the next attempt."""

import math

import pytest

from llmctl.rise.turns import is_degenerate, judge, next_conversation
from llmctl.sampling import Completion
from llmctl.tasks.base import INCORRECT

from .helpers import TASK, attempt, problems

(PROBLEM,) = problems(1)


def contents(messages):
    return [(message["role"], message["content"]) for message in messages]


def test_the_first_turn_is_the_tasks_own_conversation():
    assert next_conversation(TASK, PROBLEM, []) == TASK.conversation(PROBLEM)


def test_every_attempt_is_followed_by_its_feedback_and_the_problem():
    done = [attempt("1"), attempt("2", message="No answer could be read.")]
    assert contents(next_conversation(TASK, PROBLEM, done)) == [
        ("system", "letters"),
        ("user", "letter 0"),
        ("assistant", "1"),
        ("user", "Wrong.\nletter 0"),
        ("assistant", "2"),
        ("user", "No answer could be read.\nletter 0"),
    ]


def test_a_window_keeps_the_last_attempts_and_the_problem():
    done = [attempt(str(i)) for i in range(4)]
    kept = [
        text
        for role, text in contents(next_conversation(TASK, PROBLEM, done, window=2))
        if role == "assistant"
    ]
    assert kept == ["2", "3"]
    assert next_conversation(TASK, PROBLEM, done, window=9) == next_conversation(TASK, PROBLEM, done)


def test_a_retry_sentence_stands_in_for_the_feedback():
    (*_, last) = next_conversation(TASK, PROBLEM, [attempt("1")], retry="Check it again.")
    assert last == {"role": "user", "content": "Check it again.\nletter 0"}


def test_a_right_answer_is_told_what_a_wrong_one_is_told():
    found = judge(TASK, PROBLEM, Completion("it is a", (1, 2, 3), -0.5))
    assert (found.is_correct, found.reward, found.answer) == (True, 1.0, "a")
    assert (found.message, found.tokens, found.logprob) == (INCORRECT, 3, -0.5)


def test_the_problem_list_is_not_changed():
    before = TASK.conversation(PROBLEM)
    next_conversation(TASK, PROBLEM, [attempt("1")])
    assert TASK.conversation(PROBLEM) == before


def test_a_repeat_is_told_apart_from_white_space():
    earlier = [attempt("x", text="the  answer\nis b"), attempt("y", text="other")]
    assert judge(TASK, PROBLEM, Completion("the answer is b "), earlier).is_repeat
    assert not judge(TASK, PROBLEM, Completion("the answer is c"), earlier).is_repeat
    assert not judge(TASK, PROBLEM, Completion("the answer is b")).is_repeat


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("   ", False),
        ("no " * 29, False),
        ("no " * 30, True),
        ("no " * 30 + "yes " * 30, True),
        (" ".join(f"{i} no" for i in range(30)), True),
        (" ".join(f"{i} {i + 100} no" for i in range(30)), False),
        ("x" * 400, False),
        ("x" * 401, True),
        ("fine then " + "y" * 500, True),
    ],
)
def test_what_is_degenerate(text, expected):
    assert is_degenerate(text) is expected


def test_an_engine_failure_is_an_attempt_without_a_response():
    found = judge(TASK, PROBLEM, Completion("", finish_reason="error", error="server gone"))
    assert (found.error, found.is_correct, found.reward, found.answer) == ("server gone", False, -1.0, None)
    assert found.to_dict()["error"] == "server gone"


def test_a_log_probability_that_a_server_does_not_tell_can_be_journalled():
    from llmctl.runs.files import to_json

    found = judge(TASK, PROBLEM, Completion("it is a", (), math.nan))
    assert found.logprob is None and '"logprob": null' in to_json(found.to_dict())


def test_flags_are_journalled_only_where_they_are_set():
    assert not {"is_repeat", "is_degenerate", "error"} & attempt().to_dict().keys()
    assert attempt(is_repeat=True).to_dict()["is_repeat"] is True
