import pytest

from llmctl.errors import UserError
from llmctl.reach.universal.data import (
    PairData,
    TextPair,
    check_disjoint,
    lay_out_pairs,
    read_pairs,
    to_problem,
)
from llmctl.reach.universal.recipe import ControlSettings, PairSettings

ROWS = (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"))


def test_pairs_of_the_recipe_are_taken_in_order_without_repeats():
    data = read_pairs(PairSettings(pairs=ROWS, train=2, held_out=1, split_seed=0))
    assert [pair[:2] for pair in data.train] == [("a", "1"), ("b", "2")]
    assert [pair[:2] for pair in data.held_out] == [("c", "4")] and data.repeats == 1


def test_a_question_is_put_into_its_prompt():
    settings = PairSettings(pairs=ROWS, train=1, held_out=0, prompt="Q: {question}\nA:", reply=" {answer}")
    assert read_pairs(settings).train[0][:2] in {(f"Q: {q}\nA:", f" {a}") for q, a in ROWS}


def test_the_fingerprint_tells_where_training_ends():
    one, two = TextPair("a", "1"), TextPair("b", "2")
    prints = {PairData((one, two), ()).fingerprint(), PairData((one,), (two,)).fingerprint()}
    assert len(prints) == 2 and PairData((one,), (two,)).fingerprint() in prints


def test_too_few_pairs_and_shared_questions_are_refused():
    with pytest.raises(UserError, match="need 4 pairs, but the data hold 3 with different questions"):
        read_pairs(PairSettings(pairs=ROWS, train=3, held_out=1))
    with pytest.raises(UserError, match="1 held-out questions are training questions too"):
        check_disjoint([TextPair("a", "1")], [TextPair("a", "2", "line 3")])


def test_a_template_holds_the_question(letters):
    template = ({"role": "user", "content": "{control} {question}"},)
    problem = to_problem(TextPair("why", "x"), ControlSettings(position="template", template=template))
    assert problem.state == [{"role": "user", "content": "{control} why"}] and problem.target == "x"


def test_a_pair_that_does_not_fit_is_named_by_its_place(letters):
    with pytest.raises(UserError, match="row 7: the answer is ''"):
        lay_out_pairs([TextPair("A", "", "row 7")], ControlSettings(), letters, 40, None)
    with pytest.raises(UserError, match="pair 0: state, target and 4 control tokens are 6 tokens"):
        lay_out_pairs([TextPair("A", "B")], ControlSettings(), letters, 40, 5)
