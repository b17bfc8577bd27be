import json
from pathlib import Path
from typing import ClassVar

import pytest

from llmctl.cli.options import parse_options
from llmctl.cli.run_command import print_plan, run_folder
from llmctl.errors import UserError
from llmctl.runs.recipe import Recipe
from llmctl.runs.yaml_text import parse_yaml


class Demo(Recipe):
    kind: ClassVar[str] = "demo"
    seed: int = 3


def test_a_run_goes_where_it_is_told_or_by_its_recipes_name():
    assert run_folder(Path("x"), "rise/default") == Path("x")
    assert run_folder(None, "rise/default") == Path("runs/rise/default")
    assert run_folder(None, "mine/own.yaml") == Path("runs/own")


def test_a_plan_is_a_recipe_that_loads_with_the_work_in_comments(capsys):
    print_plan(Demo(), {"episodes": 12000, "model": "smollm2-135m"}, as_json=False)
    out = capsys.readouterr().out
    assert parse_yaml(out) == {"kind": "demo", "seed": 3}
    assert out.splitlines()[-2:] == ["# episodes: 12,000", "# model: smollm2-135m"]


def test_a_plan_as_json(capsys):
    print_plan(Demo(), {"episodes": 12}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "recipe": {"kind": "demo", "seed": 3},
        "work": {"episodes": 12},
    }


def test_options_are_read_as_yaml():
    assert parse_options(["a=1", " b = [x, 2.5]", "c="]) == {"a": 1, "b": ["x", 2.5], "c": None}
    assert parse_options(None) == {}
    with pytest.raises(UserError, match="the value is broken YAML"):
        parse_options(["a=[1"])
