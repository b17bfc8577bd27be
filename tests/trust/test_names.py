import os

import pytest

from llmctl.errors import UserError
from llmctl.trust import inside, open_without_links, refuse_link


@pytest.mark.parametrize(
    "name", ["", ".", "/etc/passwd", "..", "../victim", "a/../../victim", "a/..", "//x", "a\0b"]
)
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(UserError):
        inside(tmp_path / "run", name)


def test_a_folder_that_is_a_link_to_somewhere_else_is_refused(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="leads out of"):
        inside(tmp_path / "run", "journal/a.jsonl")


def test_a_link_in_the_last_place_is_the_callers(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").symlink_to(tmp_path / "victim")
    assert inside(tmp_path / "run", "x") == (tmp_path / "run" / "x")
    with pytest.raises(UserError, match="is a link"):
        refuse_link(tmp_path / "run" / "x")


def test_a_run_folder_that_is_reached_through_a_link_works(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "run", "models/1") == tmp_path / "real" / "models" / "1"


def test_opening_does_not_follow_a_link_and_its_target_stays_as_it_is(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="is a link, and llmctl makes none"):
        open_without_links(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    assert victim.read_text() == "precious"
