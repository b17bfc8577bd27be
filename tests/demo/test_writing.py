from collections import Counter

from llmctl.demo.attributes import COLOURS
from llmctl.demo.catalogue import DemoSettings, deal_looks
from llmctl.demo.users import DemoUser, TastePhase, simulate_user
from llmctl.demo.writing import true_summary, writing_rows

USER = DemoUser(
    "u",
    ("cup",),
    (TastePhase("blue", 0, 4), TastePhase("pink", 4, 3), TastePhase("red", 7, 3)),
    tuple(f"i{n}" for n in range(10)),
    tuple(range(10)),
    (),
)


def test_a_summary_knows_what_was_read_by_then_and_no_more():
    assert true_summary(USER, 4) == "This user now likes blue items."
    assert true_summary(USER, 5) == "This user now likes pink items. Before that: blue."
    assert true_summary(USER, 9) == "This user now likes red items. Before that: pink, blue."


def test_both_ways_to_read_a_history_have_as_many_rows():
    rows = writing_rows(20, seed=0)
    kinds = Counter(row.kind for row in rows)
    assert kinds["direct"] == kinds["recurrent"] >= 3 * 20
    assert writing_rows(20, seed=0) == rows and writing_rows(20, seed=1) != rows


def test_a_block_comes_with_the_summary_before_it_and_the_last_with_three_colours():
    rows = writing_rows(20, seed=0)
    later = [row for row in rows if "So far" in row.prompt]
    assert later and all("This user now likes" in row.prompt for row in later)
    for row in rows:
        assert row.messages[-1]["content"] == row.summary
        assert 1 <= sum(colour in row.summary for colour in COLOURS) <= 3
    assert any(row.summary.count(",") == 1 for row in rows)


def test_users_to_learn_from_are_not_those_of_a_demo():
    questions = " ".join(row.prompt for row in writing_rows(30, seed=0))
    looks = deal_looks(DemoSettings())
    captions = [
        [looks[item].caption for item in simulate_user(f"u{n:04}", looks, 0).items[:3]] for n in range(30)
    ]
    assert not any(all(one in questions.split("- ") for one in three) for three in captions)
