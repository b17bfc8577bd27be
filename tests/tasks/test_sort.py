from itertools import islice

import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task


def test_problems_are_unsorted_lists_of_distinct_numbers_of_the_lengths_asked_for():
    lengths = set()
    for problem in get_task("sort", min_length=2, max_length=4).problems("train", limit=200):
        numbers = [int(word) for word in problem.prompt.split()]
        lengths.add(len(numbers))
        assert all(10 <= number <= 99 for number in numbers) and len(set(numbers)) == len(numbers)
        assert problem.answer == problem.solution == " ".join(map(str, sorted(numbers))) != problem.prompt
    assert lengths == {2, 3, 4}


def test_no_problem_comes_twice_and_none_is_in_both_splits_whatever_the_seed():
    task = get_task("sort", min_length=2, max_length=2)
    train = [problem.prompt for problem in task.problems("train", limit=2000, seed=1)]
    test = [problem.prompt for problem in task.problems("test", limit=500, seed=2)]
    assert len(set(train)) == 2000 and len(set(test)) == 500
    assert not set(train) & set(test)


def test_seeds_give_other_problems():
    task = get_task("sort")
    one, two = ({p.prompt for p in task.problems("train", limit=100, seed=seed)} for seed in (1, 2))
    assert len(one & two) < 5


def test_used_up_problems_are_told():
    # 90 * 89 / 2 = 4005 unsorted pairs, of which about a fifth is for testing
    with pytest.raises(UserError, match="no further test problems with 2 to 2 numbers"):
        list(get_task("sort", min_length=2, max_length=2).problems("test", limit=4005))


def test_the_examples_are_in_the_conversation_and_in_no_split():
    task = get_task("sort", examples=2)
    messages = task.conversation(next(iter(task)))
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert messages[1]["content"] == "41 87 23 62" and messages[2]["content"] == "23 41 62 87"
    assert len(get_task("sort", examples=0).conversation(next(iter(task)))) == 2


def test_the_stream_is_lazy_and_its_size_is_only_a_default():
    task = get_task("sort", size=10)
    assert len(task) == sum(1 for _ in task) == 10
    assert sum(1 for _ in task.problems("train", limit=30)) == 30
    assert len(list(islice(task.problems("train", limit=10**9), 3))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 1}, "min_length 1 and max_length 5"),
        ({"min_length": 6}, "min_length 6 and max_length 5"),
        ({"max_length": 21}, "max_length 21"),
        ({"examples": 4}, "examples 4, but it has 0 to 3"),
        ({"size": 0}, "size 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        get_task("sort", **options)


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="no split 'dev', only train, test"):
        list(get_task("sort").problems("dev"))
