import pytest

from llmctl.errors import UserError
from llmctl.reach.settings import ControlRules, LoadSettings


def test_a_device_map_is_passed_on_only_where_it_is_given():
    assert "device_map" not in LoadSettings().options()
    assert LoadSettings(device_map="auto").options()["device_map"] == "auto"


def test_a_dictionary_goes_with_words_only(tmp_path):
    with pytest.raises(ValueError, match="tokens is any, but only words are looked up"):
        ControlRules(dictionary=tmp_path / "w")
    with pytest.raises(UserError, match="there is no such file"):
        ControlRules(tokens="words", dictionary=tmp_path / "w").words()
    (tmp_path / "w").write_text(" Apple\n\nPEAR \n")
    assert ControlRules(tokens="words", dictionary=tmp_path / "w").words() == {"apple", "pear"}
    assert ControlRules().words() is None
