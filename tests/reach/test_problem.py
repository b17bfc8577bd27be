import pytest

from llmctl.errors import UserError
from llmctl.reach.problem import Layout, Problem, lay_out


def test_a_control_before_the_state_comes_first(tokenizer):
    layout = lay_out(Problem(state="ab", target="c"), tokenizer)
    a, b, c = tokenizer.encode("abc")
    assert layout == Layout((), (a, b), (c,), (a, b), "before")
    assert layout.prompt([7, 8]) == [7, 8, a, b]


def test_a_control_after_the_state_comes_last(tokenizer):
    layout = lay_out(Problem(state="ab", target="cd", position="after"), tokenizer)
    assert layout.prompt([7]) == [*tokenizer.encode("ab"), 7]
    assert layout.target_ids == tuple(tokenizer.encode("cd"))
    assert layout.length(3) == 2 + 3 + 2


def test_ids_are_taken_as_they_are(tokenizer):
    assert lay_out(Problem(state=[5, 6], target=[9]), tokenizer).prompt([1]) == [1, 5, 6]


def test_the_beginning_of_sequence_token_stays_first_where_the_tokenizer_puts_one(tokenizer):
    class WithBos:
        bos_token_id = 1

        def __len__(self):
            return len(tokenizer)

        def encode(self, text, add_special_tokens=True):
            ids = tokenizer.encode(text)
            return [1, *ids] if add_special_tokens else ids

    layout = lay_out(Problem(state="ab", target="c"), WithBos())
    assert layout.prompt([7]) == [1, 7, *tokenizer.encode("ab")]


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (
            "system",
            "<|im_start|>system\nXY<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("user_start", "<|im_start|>user\nXYhello<|im_end|>\n<|im_start|>assistant\n"),
        ("user_end", "<|im_start|>user\nhelloXY<|im_end|>\n<|im_start|>assistant\n"),
        ("reply_start", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nXY"),
    ],
)
def test_a_slot_of_the_chat_template_holds_the_control(tokenizer, position, text):
    layout = lay_out(Problem(state="hello", target="c", position=position), tokenizer)
    assert layout.prompt(tokenizer.encode("XY")) == tokenizer.encode(text)
    assert layout.state_ids == tuple(tokenizer.encode("hello"))


def test_a_conversation_names_its_own_slot(tokenizer):
    messages = [{"role": "user", "content": "say {control} now"}]
    layout = lay_out(Problem(state=messages, target="c", position="template"), tokenizer)
    text = "<|im_start|>user\nsay XY now<|im_end|>\n<|im_start|>assistant\n"
    assert layout.prompt(tokenizer.encode("XY")) == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"state": "", "target": "c"}, "state is empty"),
        ({"state": "a", "target": "c", "position": "middle"}, "'middle', but it must be one of before"),
        ({"state": "a", "target": "c", "controls": "nice"}, "'nice', but it must be any"),
        ({"state": [5, 999], "target": "c"}, "state holds token 999, but the vocabulary is 0 to 258"),
        ({"state": "a", "target": [-1]}, "target holds token -1"),
        ({"state": [5, "x"], "target": "c"}, "text or a list of token ids"),
        ({"state": [5], "target": "c", "position": "system"}, "must be text"),
        ({"state": "a", "target": "c", "position": "template"}, "needs a conversation"),
        (
            {"state": [{"role": "user", "content": "no slot"}], "target": "c", "position": "template"},
            "holds {control} 0 times",
        ),
    ],
)
def test_a_bad_problem_is_refused_in_one_line(tokenizer, problem, message):
    with pytest.raises(UserError, match=message) as caught:
        lay_out(Problem(**problem), tokenizer)
    assert "\n" not in str(caught.value)


def test_a_prompt_longer_than_the_context_is_refused(tokenizer):
    with pytest.raises(UserError, match="16 tokens, but the model's context is 15"):
        lay_out(Problem(state="a" * 10, target="c"), tokenizer, context_length=15, max_k=5)


def test_a_tokenizer_without_template_has_no_slots(letters):
    with pytest.raises(UserError, match="has none: use before or after"):
        lay_out(Problem(state="AB", target="C", position="system"), letters)


def test_a_template_that_repeats_the_slot_is_refused(tokenizer):
    import copy

    doubled = copy.deepcopy(tokenizer)
    doubled.chat_template = "{{ messages[0]['content'] }}{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="2 times, but it is needed once"):
        lay_out(Problem(state="a", target="c", position="user_end"), doubled)


def test_a_template_that_refuses_the_role_is_reported(tokenizer):
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="no system role"):
        lay_out(Problem(state="a", target="c", position="system"), strict)
