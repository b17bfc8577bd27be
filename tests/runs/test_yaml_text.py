"""YAML in and out: the core schema of 1.2, quoted so that readers of 1.1 agree."""

from pathlib import Path

import pytest
import yaml

from llmctl.runs.yaml_text import BrokenYamlError, dump_yaml, parse_yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "eval" / "jobs").rglob("*.yaml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_comes_along_reads_and_writes_as_the_same_values(path):
    content = parse_yaml(path.read_text())
    assert isinstance(content, dict) and content
    assert parse_yaml(dump_yaml(content)) == content
    assert yaml.safe_load(dump_yaml(content)) == content  # PyYAML reads YAML 1.1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0b1", "0b1"),
        ("-0x1F", "-0x1F"),
        (".5e3", 500.0),
        ("+1", 1),
        ("=", "="),
        ("1e", "1e"),
        (".Inf", float("inf")),
    ],
)
def test_scalars_that_other_readers_take_differently(text, value):
    read = parse_yaml(f"key: {text}\n")["key"]
    assert read == value and type(read) is type(value)


def test_a_merge_key_may_be_overridden():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\nb: {x: 1, x: 2}", "found duplicate key", 2),
        ("a: 1\n2: b", "the key 2 is not text; put it in quotes", 2),
        ("a: *b", "found undefined alias", 1),
        ("a: 1\n---\nb: 2", "expected a single document in the stream, but found another", 2),
    ],
)
def test_broken_yaml_is_refused_with_its_line(text, problem, line):
    with pytest.raises(BrokenYamlError, match=problem) as caught:
        parse_yaml(text)
    assert caught.value.line == line and "\n" not in caught.value.problem


def test_text_that_a_reader_of_1_1_takes_for_something_else_is_quoted():
    values = ["no", "1:30", "2024-01-01", "1e-5", "1_000", "~", "", "0o17", "0b1", "y", "on", "=", "<<"]
    assert yaml.safe_load(dump_yaml(values)) == values == parse_yaml(dump_yaml(values))
    assert yaml.safe_load(dump_yaml([1e-5, 1e30, 0.1])) == [1e-5, 1e30, 0.1]
