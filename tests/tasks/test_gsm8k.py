import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task

from .samples import write_rows


def test_solutions_lose_their_calculator_marks_and_end_with_the_boxed_answer(data_folder):
    first, second, third = get_task("gsm8k", path=data_folder / "gsm8k.jsonl")
    assert first.solution == "3 * 4 = 12 clips.\nThe answer is $\\boxed{12}$."
    assert (first.answer, second.answer, third.answer) == ("12", "1,000", "-3")
    assert first.id == "gsm8k:1"


def test_replies_with_one_number_vote_alike(data_folder):
    task = get_task("gsm8k", path=data_folder / "gsm8k.jsonl")
    problem = list(task)[1]
    votes = {
        task.check(problem, text).answer
        for text in ("1000.0", "\\boxed{\\$1{,}000}", "#### 1000", "1,000 dollars")
    }
    assert votes == {"1000"}


@pytest.mark.parametrize("answer", ["no mark", "1 + 1 = 2\n####", "#### many"])
def test_a_row_without_a_number_at_its_end_is_named(tmp_path, answer):
    path = write_rows(tmp_path / "train.jsonl", [{"question": "?", "answer": answer}])
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: field 'answer' must end with '#### NUMBER'"):
        list(get_task("gsm8k", path=path))


def test_a_row_without_a_question_is_named(tmp_path):
    path = write_rows(tmp_path / "train.jsonl", [{"answer": "#### 1"}])
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: field 'question' is missing"):
        list(get_task("gsm8k", path=tmp_path))
    assert path.exists()
