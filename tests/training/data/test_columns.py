import json

import pytest

from llmctl.errors import UserError
from llmctl.models.tiny import CHAT_TEMPLATE, tiny_tokenizer
from llmctl.training.data import prepare
from llmctl.training.data.encoding import IGNORED

from ..helpers import chat

TWO_TURNS = chat("2+2?", "5", "That is wrong.", "4", weight=1.5)


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


def labelled_text(tokenizer, prepared, row=0):
    return tokenizer.decode([label for label in prepared.dataset[row]["labels"] if label != IGNORED])


def test_only_the_last_response_carries_loss(tokenizer):
    prepared = prepare([TWO_TURNS], tokenizer)
    assert labelled_text(tokenizer, prepared) == "4<|im_end|>\n"
    assert tokenizer.decode(prepared.dataset[0]["input_ids"]) == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n5<|im_end|>\n"
        "<|im_start|>user\nThat is wrong.<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    )


def test_loss_on_assistant_takes_every_response_and_nothing_else(tokenizer):
    prepared = prepare([TWO_TURNS], tokenizer, loss_on="assistant")
    assert labelled_text(tokenizer, prepared) == "5<|im_end|>\n4<|im_end|>\n"


def test_loss_on_all_takes_every_token(tokenizer):
    prepared = prepare([TWO_TURNS], tokenizer, loss_on="all")
    assert prepared.dataset[0]["labels"] == prepared.dataset[0]["input_ids"]
    assert prepared.label_tokens == prepared.tokens - 1  # the first token is predicted by nothing


def test_the_ids_are_those_that_trl_makes_of_prompt_and_completion(tokenizer):
    from trl.trainer.sft_trainer import _tokenize

    messages = TWO_TURNS["messages"]
    prompt = _tokenize(tokenizer, messages[:-1], add_generation_prompt=True)["input_ids"]
    full = _tokenize(tokenizer, messages)["input_ids"]
    row = prepare([TWO_TURNS], tokenizer).dataset[0]
    assert row["input_ids"] == full
    assert row["labels"] == [IGNORED] * len(prompt) + full[len(prompt) :]


def test_counts_and_weights_are_kept(tokenizer):
    prepared = prepare([chat("a", "bc"), TWO_TURNS], tokenizer)
    assert prepared.dataset["weight"] == [1.0, 1.5]
    assert prepared.tokens == sum(prepared.dataset["length"])
    assert prepared.label_tokens == len("bc") + 2 + len("4") + 2  # each with <|im_end|> and a line break


def test_a_row_without_a_weight_has_weight_1(tokenizer):
    row = {"messages": TWO_TURNS["messages"]}
    assert prepare([row], tokenizer).dataset["weight"] == [1.0]


def test_a_row_that_is_too_long_is_dropped_and_counted_never_cut(tokenizer):
    short, long = chat("a", "b"), chat("a", "b" * 50)
    prepared = prepare([short, long], tokenizer, max_length=40)
    assert prepared.dropped == 1
    assert labelled_text(tokenizer, prepared) == "b<|im_end|>\n"


def test_a_row_of_just_max_length_stays(tokenizer):
    length = prepare([TWO_TURNS], tokenizer).tokens
    assert prepare([TWO_TURNS], tokenizer, max_length=length).dropped == 0


def test_rows_that_are_all_too_long_are_an_error(tokenizer):
    with pytest.raises(UserError, match="each of the 1 rows is longer than max_length=10"):
        prepare([TWO_TURNS], tokenizer, max_length=10)


def test_a_model_without_a_chat_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template"):
        prepare([TWO_TURNS], tokenizer)


def test_a_template_that_rewrites_the_prompt_is_refused_by_name(tokenizer):
    # The generation prompt ("assistant:") is not how the response is rendered ("<|im_start|>assistant").
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "'<|im_start|>assistant\\n' }}{% endif", "'ai:' }}{% endif"
    )
    assert tokenizer.chat_template != CHAT_TEMPLATE
    with pytest.raises(UserError, match="chat template renders the prompt of message 4 of row 1 differently"):
        prepare([TWO_TURNS], tokenizer)


def test_a_template_that_raises_is_one_clear_line(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no system message here') }}"
    with pytest.raises(UserError, match="the chat template refuses row 1 .no system message here"):
        prepare([TWO_TURNS], tokenizer)


def merging_tokenizer():
    """The tiny tokenizer with one token for two line breaks, as many real ones have."""
    from tokenizers import Tokenizer

    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"]["ĊĊ"] = len(tokenizer)
    state["model"]["merges"] = [["Ċ", "Ċ"]]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    return tokenizer


def test_a_response_that_merges_with_its_prompt_keeps_the_tokens_of_the_prompt():
    tokenizer = merging_tokenizer()
    row = chat("hi", "\n\nfour")
    prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(row["messages"])["input_ids"]
    assert whole[: len(prompt)] != prompt  # a token reaches over the edge
    prepared = prepare([row], tokenizer)
    assert prepared.dataset[0]["input_ids"][: len(prompt)] == prompt
    assert labelled_text(tokenizer, prepared) == "\n\nfour<|im_end|>\n"
