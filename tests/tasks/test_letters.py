import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task


def test_problems_are_unsorted_lists_of_distinct_letters_of_the_lengths_asked_for():
    lengths = set()
    for problem in get_task("letters", min_length=3, max_length=5).problems("train", limit=200):
        letters = problem.prompt.split()
        lengths.add(len(letters))
        assert len(set(letters)) == len(letters)
        assert problem.answer == problem.solution == " ".join(sorted(letters)) != problem.prompt
    assert lengths == {3, 4, 5}


def test_no_problem_comes_twice_and_none_is_in_both_splits_whatever_the_seed():
    task = get_task("letters", min_length=3, max_length=3)
    train = [problem.prompt for problem in task.problems("train", limit=2000, seed=1)]
    test = [problem.prompt for problem in task.problems("test", limit=500, seed=2)]
    assert len(set(train)) == 2000 and len(set(test)) == 500
    assert not set(train) & set(test)


def test_the_examples_are_the_same_for_every_seed_and_in_no_split():
    task = get_task("letters", min_length=2, max_length=2, alphabet="abc", examples=3, separator="")
    assert (
        task.examples()
        == get_task(
            "letters", min_length=2, max_length=2, alphabet="abc", examples=3, separator=""
        ).examples()
    )
    shown = {prompt for prompt, _ in task.examples()}
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"no further {split} problems with 2 to 2 letters"):
            assert not shown & {problem.prompt for problem in task.problems(split, limit=10)}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("a b c", "a b c"),
        ("a, b, c.", "a b c"),
        ("\n a b c\nand more", "a b c"),
        ("abc", None),
        ("The letters are a b c", None),
        ("a b 3", None),
        ("", None),
    ],
)
def test_the_first_line_is_read_and_nothing_else_counts(reply, answer):
    task = get_task("letters")
    problem = next(iter(task))
    assert task.check(problem, reply).answer == answer


def test_letters_without_a_separator_are_read_one_by_one():
    task = get_task("letters", separator="")
    problem = next(iter(task))
    assert " " not in problem.prompt
    assert task.check(problem, problem.answer).is_correct
    assert not task.check(problem, problem.prompt).is_correct


def test_an_alphabet_orders_as_it_is_given():
    problem = next(iter(get_task("letters", min_length=3, max_length=3, alphabet="zyx")))
    assert problem.answer == "z y x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 1}, "min_length 1 and max_length 10"),
        ({"max_length": 27}, "max_length 27"),
        ({"alphabet": "aab"}, "letters that differ are needed"),
        ({"alphabet": "a1"}, "letters that differ are needed"),
        ({"separator": " and "}, "which holds a letter"),
        ({"examples": 4}, "it has 0 to 3"),
        ({"size": 0}, "size 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        get_task("letters", **options)
