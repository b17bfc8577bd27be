"""What the recommender is asked and taught, the tokens that answer it, and what may be said of figures."""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llmctl.errors import UserError
from llmctl.models.tiny import answering_tokenizer, tiny_tokenizer
from llmctl.msr.evaluation.comparisons import ModelComparison
from llmctl.msr.recommender.prompt import (
    AnswerTokens,
    Case,
    Question,
    draw_negatives,
    find_answer_tokens,
    training_rows,
)
from llmctl.msr.settings import RecommenderArm, RecommenderSettings, UserSummarySettings
from llmctl.msr.summaries.wording import Wording
from llmctl.runs import Estimate
from tests.msr.made_data import history

TITLES = {f"i{n}": f"thing {n}" for n in range(30)}
CASE = Case("u", "likes {candidate}", history("i1", "i2"))


def question(**settings):
    arm = RecommenderArm(name="a", users=UserSummarySettings(), recommender=RecommenderSettings(**settings))
    return Question(arm, Wording(TITLES, {"i3": "a red cup"}))


def test_every_spelling_of_yes_and_no_that_is_a_token_counts():
    tokenizer = answering_tokenizer()
    tokenizer.add_tokens([" yes", " No", "yesterday", "nos"])
    found = find_answer_tokens(tokenizer, "m")
    words = [[tokenizer.decode([token]) for token in ids] for ids in (found.yes, found.no)]
    assert words == [["yes", "Yes", "YES", " yes"], ["no", "No", "NO", " No"]]
    assert found.ids == (*found.yes, *found.no)


def test_a_vocabulary_without_both_words_is_refused():
    with pytest.raises(UserError, match="tiny has no token that is 'yes', but the score of a candidate"):
        find_answer_tokens(tiny_tokenizer(), "tiny")
    only_yes = tiny_tokenizer()
    only_yes.add_tokens(["Yes"])
    with pytest.raises(UserError, match="m has no token that is 'no'"):
        find_answer_tokens(only_yes, "m")


def test_the_score_is_the_share_of_yes_over_all_spellings():
    tokens = AnswerTokens((1, 2), (3,))
    yes, mass = tokens.probability([math.log(0.2), math.log(0.1), math.log(0.1)])
    assert (yes, mass) == pytest.approx((0.75, 0.4))
    assert tokens.probability([-900.0, -1000.0, -901.0])[0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_candidate_comes_last_and_braces_in_what_is_known_fill_in_nothing():
    (message,) = question().conversation(CASE, "i3")
    before, after = message["content"].split("likes {candidate}")
    assert "preferences" in before and after.endswith("thing 3: a red cup\n\nAnswer yes or no.")


def test_a_picture_stands_where_the_candidate_is_and_takes_the_place_of_its_description(tmp_path):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "3.png")
    arm = RecommenderArm(
        name="a", users=UserSummarySettings(), recommender=RecommenderSettings(variant="image")
    )
    asks = Question(arm, Wording(TITLES, {"i3": "a red cup"}), {"i3": str(tmp_path / "3.png")}, 64)
    (message,) = asks.conversation(CASE, "i3")
    first, picture, last = message["content"]
    assert picture["image"].getpixel((0, 0)) == (255, 0, 0) and last["text"].startswith("thing 3\n\nAnswer")
    assert first["text"].endswith("next?\n")
    row = asks.training_messages(CASE, "i3", "yes")
    assert row[0]["content"][1] == {"type": "image", "path": str(tmp_path / "3.png"), "max_side": 64}
    assert [first, last] == [row[0]["content"][0], row[0]["content"][2]]
    assert isinstance(asks.conversation(CASE, "i4")[0]["content"], str)  # without a picture: text


def test_negatives_are_untouched_even_and_another_draw_in_every_pass():
    asks = question(negatives_per_positive=2)
    rows = list(training_rows(asks, [(CASE, "i3")] * 2, list(TITLES), 3, seed=0))
    assert Counter(row.messages[1]["content"] for row in rows) == {"yes": 6, "no": 12}
    drawn = Counter(draw_negatives(list(TITLES), {"i1", "i2"}, 1, seed)[0] for seed in range(5600))
    assert set(drawn) == set(TITLES) - {"i1", "i2"}
    assert max(abs(count - 200) for count in drawn.values()) < 5 * math.sqrt(200)
    assert len(set(draw_negatives(list(TITLES), {"i1"}, 29, 0))) == 29
    with pytest.raises(UserError, match="interacted with 1 of 30 items, which leaves fewer than the 30"):
        draw_negatives(list(TITLES), {"i1"}, 30, 0)


@pytest.mark.parametrize(
    ("low", "high", "begins"),
    [(0.01, 0.2, "Shown: a beats b"), (-0.1, 0.2, "Not shown: a beats b"), (-0.3, -0.1, "The opposite is")],
)
def test_a_claim_is_said_as_the_measurement_leaves_it(low, high, begins):
    found = ModelComparison("a beats b", "a", "b", {"auc": Estimate((low + high) / 2, low, high, 60)})
    assert found.sentence.startswith(begins) and "60 users" in found.sentence
    alone = ModelComparison("a beats b", "a", "b", {"auc": Estimate(0.1, None, None, 1)})
    assert alone.sentence.startswith("Not decided: a beats b")


@pytest.mark.slow
def test_the_embedded_model_has_yes_and_no_in_several_spellings(embedded_model):
    from llmctl.models.loading import load_tokenizer

    tokenizer = load_tokenizer(embedded_model)
    found = find_answer_tokens(tokenizer, "smollm2-135m")
    for ids, words in ((found.yes, {"yes", "Yes", " yes", " Yes"}), (found.no, {"no", "No", " no", " No"})):
        assert words <= {tokenizer.decode([token]) for token in ids}
    assert np.intersect1d(found.yes, found.no).size == 0
