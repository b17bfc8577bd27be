"""Families of tasks whose names carry an argument."""

import pytest

from llmctl.errors import UserError
from llmctl.tasks import get_task
from llmctl.tasks.prefixes import PREFIXES


def test_each_family_describes_itself_by_the_form_of_its_names():
    assert {key: prefix.info().name for key, prefix in PREFIXES.items()} == {
        "gym": "gym:<dataset>",
        "python": "python:<module>:<attribute>",
    }
    assert all(prefix.info().description and prefix.info().needs for prefix in PREFIXES.values())


def test_generated_problems_have_no_path():
    with pytest.raises(UserError, match="gym:chain_sum got path 'x', but its problems are generated"):
        get_task("gym:chain_sum", path="x")


def test_a_prefix_that_does_not_exist_is_an_unknown_task():
    with pytest.raises(UserError, match="no task 'gim:chain_sum'; the nearest is"):
        get_task("gim:chain_sum")
