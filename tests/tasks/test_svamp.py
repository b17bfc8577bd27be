import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task

from .samples import write_rows


def test_body_and_question_make_the_prompt_and_the_equation_the_solution(data_folder):
    first, second = get_task("svamp", path=data_folder / "svamp.jsonl")
    assert first.prompt == "Ann has 3 pens. How many are left if she loses 1?"
    assert first.solution == "( 3 - 1 ) = 2\nThe answer is $\\boxed{2}$."
    assert second.prompt == "Bo has 5 pens. How many has he?"
    assert second.solution == "The answer is $\\boxed{5}$."


def test_an_answer_that_is_no_number_is_named(tmp_path):
    path = write_rows(tmp_path / "svamp.jsonl", [{"Body": "b", "Question": "q", "Answer": "many"}])
    with pytest.raises(UserError, match=r"svamp\.jsonl, line 1: field 'Answer' must be a number.*'many'"):
        list(get_task("svamp", path=path))
