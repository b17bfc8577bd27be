import pytest

from llmctl.errors import UserError
from llmctl.reach.parse_inputs import one_of, read_ids, read_state


def test_ids_are_separated_by_spaces_or_commas():
    assert read_ids("1504, 314 7", "--state-ids") == (1504, 314, 7)
    with pytest.raises(UserError, match="--state-ids is '1 x'"):
        read_ids("1 x", "--state-ids")


def test_a_text_or_ids_are_needed_and_not_both():
    assert one_of("hi", "", "--state") == "hi" and one_of("", "5 6", "--state") == (5, 6)
    for text, ids, received in (("", "", "empty"), ("hi", "5", "both given")):
        with pytest.raises(UserError, match=f"--state and --state-ids are {received}"):
            one_of(text, ids, "--state")


def test_position_template_reads_a_json_conversation():
    assert read_state('[{"role": "user", "content": "{control}"}]', "", "template")[0]["role"] == "user"
    assert read_state("[1", "", "before") == "[1"
    with pytest.raises(UserError, match="needs a JSON conversation"):
        read_state("[1", "", "template")
