import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task

from .samples import write_rows


def test_the_answer_is_the_last_box_with_its_nested_braces(data_folder):
    problems = list(get_task("math", path=data_folder / "math.jsonl"))
    assert [problem.answer for problem in problems] == [
        "\\dfrac{1}{2}",
        "x^2+x",
        "[0,\\infty)",
        "\\text{Tuesday}",
    ]
    assert problems[0].meta == {"level": "Level 1", "type": "Algebra"}


@pytest.mark.parametrize(
    ("index", "reply", "reward"),
    [
        (0, "\\boxed{0.5}", 1.0),
        (0, "\\boxed{2}", 0.0),
        (1, "\\boxed{x(x+1)}", 1.0),
        (1, "\\boxed{x(x-1)}", 0.0),
        (2, "\\boxed{[0, \\infty)}", 1.0),
        (2, "\\boxed{(0, \\infty)}", 0.0),
        (3, "\\boxed{Tuesday}", 1.0),
        (3, "It is Tuesday", -1.0),
    ],
)
def test_replies_are_judged_by_meaning(data_folder, index, reply, reward):
    task = get_task("math", path=data_folder / "math.jsonl")
    assert task.check(list(task)[index], reply).reward == reward


def test_a_solution_without_a_box_is_named(tmp_path):
    path = write_rows(tmp_path / "math.jsonl", [{"problem": "p", "solution": "It is 3."}])
    with pytest.raises(UserError, match=r"math\.jsonl, line 1: field 'solution' has no \\boxed"):
        list(get_task("math", path=path))
