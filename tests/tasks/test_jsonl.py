import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task

from .samples import write_rows


def test_fields_have_the_names_that_the_user_gives(tmp_path):
    path = write_rows(
        tmp_path / "own.jsonl", [{"q": "Capital of France?", "a": "Paris", "full": "Paris.", "key": 7}]
    )
    task = get_task(
        "jsonl", path=path, prompt="q", answer="a", solution="full", id="key", kind="text", system="Hi"
    )
    (problem,) = task
    assert (problem.id, problem.prompt, problem.answer, problem.solution) == (
        "7",
        "Capital of France?",
        "Paris",
        "Paris.",
    )
    assert task.check(problem, "I think:\nparis").is_correct
    assert task.conversation(problem)[0]["content"] == "Hi"


def test_solution_and_id_are_optional(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", [{"prompt": "p", "answer": 3}, {"prompt": "q", "answer": 4}])
    first, second = get_task("jsonl", path=path)
    assert (first.id, first.solution, second.id) == ("own:1", None, "own:2")


def test_latex_answers_are_compared_by_meaning(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", [{"prompt": "p", "answer": "x^2+x"}])
    task = get_task("jsonl", path=path, kind="latex")
    assert task.check(next(iter(task)), "\\boxed{x(x+1)}").is_correct


def test_a_repeated_id_is_named(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", [{"prompt": "p", "answer": 3, "id": "a"}] * 2)
    with pytest.raises(UserError, match=r"own\.jsonl, line 2: id 'a' came before"):
        list(get_task("jsonl", path=path))


def test_an_answer_of_another_kind_is_named(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", [{"prompt": "p", "answer": "Paris"}])
    with pytest.raises(
        UserError, match=r"line 1: field 'answer' is 'Paris', which is no answer of kind 'number'"
    ):
        list(get_task("jsonl", path=path))


def test_path_and_kind_are_checked_at_once(tmp_path):
    with pytest.raises(UserError, match="jsonl needs a file: give path="):
        get_task("jsonl")
    path = write_rows(tmp_path / "own.jsonl", [{}])
    with pytest.raises(UserError, match="kind 'word', but it must be one of number"):
        get_task("jsonl", path=path, kind="word")
