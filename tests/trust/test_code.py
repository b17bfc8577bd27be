import os
import types

import pytest

from llmctl.errors import UserError
from llmctl.trust import allow_code, check_code, check_module, is_code_allowed
from llmctl.trust.code import check_origin


@pytest.fixture(autouse=True)
def forgotten():
    yield
    allow_code(False)


def test_code_of_others_is_refused_until_the_user_allows_it():
    with pytest.raises(
        UserError, match="task 'python:mine:make' runs code that is not llmctl's.*--allow-code"
    ):
        check_code("task 'python:mine:make'")
    allow_code()
    assert is_code_allowed()
    check_code("task 'python:mine:make'")


@pytest.mark.parametrize(
    "name", ["os", "os.path", "subprocess", "builtins", "importlib.util", "_posixsubprocess"]
)
def test_a_module_of_python_is_refused_even_where_code_is_allowed(name):
    allow_code()
    with pytest.raises(UserError, match="standard library"):
        check_module(name, "the task")


def test_a_module_of_ones_own_is_let_through():
    check_module("my_tasks.letters", "the task")


def test_a_function_of_python_that_another_module_passes_on_is_refused():
    passing = types.SimpleNamespace(system=os.system)
    with pytest.raises(UserError, match="belongs to Python"):
        check_origin(passing.system, "the task")
    check_origin(lambda: None, "the task")
