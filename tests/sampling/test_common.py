"""Seeds of requests, and checks of conversations."""

from types import MappingProxyType

import pytest

from llmctl.errors import UserError
from llmctl.sampling.common import check_conversations, check_length, derive_seed, render, request_seeds


def ask(text):
    return [{"role": "user", "content": text}]


def test_a_seed_follows_its_conversation_in_any_order_and_any_cut():
    talks = [ask("a"), ask("b"), ask("c")]
    whole = request_seeds(5, talks)
    assert request_seeds(5, talks[::-1]) == whole[::-1]
    assert request_seeds(5, talks[1:]) == whole[1:]
    assert request_seeds(6, talks) != whole


def test_equal_conversations_get_seeds_of_their_own_by_their_count():
    first, second = request_seeds(5, [ask("a"), ask("a")])
    assert first != second
    assert request_seeds(5, [ask("b"), ask("a"), ask("a")])[1:] == [first, second]


def test_without_a_seed_every_call_differs():
    assert request_seeds(None, [ask("a")]) != request_seeds(None, [ask("a")])


def test_the_kind_of_mapping_plays_no_part():
    assert request_seeds(1, [ask("a")]) == request_seeds(1, [[MappingProxyType(ask("a")[0])]])


def test_images_are_told_apart_by_their_pixels_and_not_by_their_address():
    image = pytest.importorskip("PIL.Image")

    def show(colour):
        part = {"type": "image", "image": image.new("RGB", (2, 2), colour)}
        return [{"role": "user", "content": [part]}]

    assert request_seeds(1, [show("red")]) == request_seeds(1, [show("red")])
    assert request_seeds(1, [show("red")]) != request_seeds(1, [show("blue")])


def test_a_derived_seed_depends_on_every_part_and_their_order():
    seeds = {
        derive_seed(1, 2),
        derive_seed(2, 1),
        derive_seed(12),
        derive_seed("1", "2"),
        derive_seed(1, 2, 0),
    }
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "turns", 3) == derive_seed(1, "turns", 3)


@pytest.mark.parametrize(
    ("conversation", "match"),
    [
        ("hello", "conversation 1 is a str, but a list of messages is needed"),
        ([], "conversation 1 is empty"),
        ([{"role": "human", "content": "x"}], "needs a role"),
        ([{"role": "user"}], "and a content"),
        (["hello"], "needs a role"),
        ([{"role": "assistant", "content": "x"}], "ends with a message of role 'assistant'"),
    ],
)
def test_a_malformed_conversation_is_refused_with_its_number(conversation, match):
    with pytest.raises(UserError, match=match):
        check_conversations([ask("fine"), conversation])


def test_a_prompt_must_leave_room_for_its_reply():
    check_length(0, 90, 10, 100)
    check_length(0, 10**9, 10, None)
    with pytest.raises(
        UserError, match="conversation 3 has 91 tokens and asks for up to 10 .* context is 100"
    ):
        check_length(3, 91, 10, 100)


def test_a_tokenizer_without_chat_template_is_refused():
    from llmctl.models.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template: use an instruction-tuned model"):
        render(tokenizer, ask("x"))


def test_a_template_that_refuses_is_told_in_one_line():
    from llmctl.models.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="refuses the conversation .roles must alternate."):
        render(tokenizer, ask("x"))
