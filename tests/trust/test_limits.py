import os

import pytest

from llmctl.errors import UserError
from llmctl.trust import check_yaml, parse_json, read_limited
from llmctl.trust.limits import DEPTH, NODES


def test_an_alias_bomb_is_refused_before_it_is_built():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match=f"stands for more than {NODES:,} values"):
        check_yaml("\n".join(lines))


@pytest.mark.parametrize("text", ["a: &a {b: *a}", "&x [[*x]]", "a: &a {<<: *a}"])
def test_yaml_that_holds_itself_is_refused(text):
    with pytest.raises(UserError, match="holds itself, through the alias"):
        check_yaml(text)


def test_plain_aliases_pass():
    check_yaml("base: &base {a: 1, b: 2}\nfirst: {<<: *base, c: 3}\nsecond: *base\n")


@pytest.mark.parametrize("text", ["[" * 100_000, "x: " + "[" * 900_000, "{a: " * 5000, "- " * 70 + "x"])
def test_deep_yaml_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=f"nests deeper than {DEPTH} levels"):
        check_yaml(text)


def test_many_values_are_refused():
    with pytest.raises(UserError, match="stands for more than"):
        check_yaml("\n".join(["x:"] + [f"  - {i}" for i in range(NODES + 1)]))


def test_broken_yaml_is_left_to_the_parser():
    check_yaml("a: [1, 2\nb: }")


def test_deep_json_is_an_error_in_words():
    with pytest.raises(ValueError, match="nests too deep"):
        parse_json("[" * 200_000)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"x" * 11)
    assert read_limited(tmp_path / "r.yaml", 11) == b"x" * 11
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read_limited(tmp_path / "r.yaml", 10)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe or a device"):
        read_limited(tmp_path / "pipe")


def test_a_device_is_refused():
    with pytest.raises(UserError, match="a pipe or a device"):
        read_limited("/dev/zero")


def test_a_link_inside_a_run_is_refused(tmp_path):
    (tmp_path / "secret").write_text("s")
    (tmp_path / "metrics.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a link"):
        read_limited(tmp_path / "metrics.json", is_link_allowed=False)
