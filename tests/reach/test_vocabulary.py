import pytest

from llmctl.errors import UserError
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.vocabulary import Pool, allowed_tokens, survive


def allowed(tokenizer, **options):
    return set(allowed_tokens(Problem(state="a", target="b", **options), tokenizer, 259))


def test_any_control_is_the_whole_vocabulary(tokenizer):
    assert allowed(tokenizer) == set(range(259))


def test_forbidden_tokens_are_left_out_as_ids_and_as_text(tokenizer):
    x, y = tokenizer.encode("xy")
    assert allowed(tokenizer) - allowed(tokenizer, forbidden=[7, "xy"]) == {7, x, y}


def test_printable_controls_hold_no_control_characters_and_no_half_characters(tokenizer):
    texts = {tokenizer.decode([token]) for token in allowed(tokenizer, controls="printable")}
    expected = {chr(code) for code in range(32, 127)} | {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert texts == expected


def test_word_controls_are_whole_words_of_the_dictionary():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"Ġhouse": 0, "house": 1, "Ġhou": 2, "ĠMouse": 3, "Ġ42": 4, "<unk>": 5}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    words.decode = lambda ids, **_: words.convert_ids_to_tokens(ids)[0].replace("Ġ", " ")
    problem = Problem(state=[0], target=[1], controls="words", dictionary=["house", "mouse", "42"])
    assert allowed_tokens(problem, words, 6) == (0, 3)


def test_forbidding_every_token_is_refused(tokenizer):
    with pytest.raises(UserError, match="no token is left"):
        allowed(tokenizer, forbidden=range(259))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forbidden": [300]}, "forbidden holds token 300"),
        ({"candidates": [-2]}, "candidates holds token -2"),
        ({"forbidden": "abc"}, r"a list is needed: \['abc'\]"),
    ],
)
def test_tokens_outside_the_vocabulary_are_refused(tokenizer, options, message):
    with pytest.raises(UserError, match=message):
        allowed(tokenizer, **options)


def test_words_without_a_dictionary_say_what_to_do(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr("llmctl.reach.vocabulary._SYSTEM_DICTIONARY", tmp_path / "none")
    with pytest.raises(UserError, match="give `dictionary`, or install"):
        allowed(tokenizer, controls="words")


def test_half_a_character_does_not_survive(tokenizer):
    whole = tokenizer.encode("é")
    assert len(whole) == 2
    assert survive([whole, whole[:1], tokenizer.encode("a")], tokenizer) == [True, False, True]


def test_survival_is_judged_in_the_whole_prompt(tokenizer):
    first, second = tokenizer.encode("é")
    problem = Problem(state=[second], target="b", must_roundtrip=True)
    pool = Pool(problem, lay_out(problem, tokenizer), tokenizer, 259)
    assert pool.admits([[first], [second]]) == [True, False]  # together with the state the first is "é"


def test_rows_of_the_embedding_beyond_the_tokenizer_are_no_tokens(tokenizer):
    problem = Problem(state="a", target="b")
    assert Pool(problem, lay_out(problem, tokenizer), tokenizer, 320).token_ids == tuple(range(259))
