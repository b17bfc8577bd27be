"""Tasks from somebody's own code: what is accepted, and what each mistake is called."""

import sys

import pytest

from llmctl.errors import UserError
from llmctl.tasks import Task, get_task
from llmctl.tasks.own_code import make_task, task_from_python
from llmctl.tasks.sort import Sort


def test_a_task_is_taken_as_it_is():
    task = get_task("sort")
    assert make_task("mine", task, {}) is task


def test_a_class_or_a_function_is_called_with_the_options():
    assert len(make_task("mine", Sort, {"size": 7})) == 7
    assert isinstance(make_task("mine", lambda: get_task("sort"), {}), Task)


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (5, {}, "task 'mine' is a int, but a task or a callable that returns one is needed"),
        (lambda: 5, {}, "task 'mine' is a int without name, __iter__, problems, conversation, check"),
        (Sort, {"sise": 3}, "task 'mine' cannot take the options given"),
    ],
)
def test_what_is_no_task_is_refused(found, options, message):
    with pytest.raises(UserError, match=message):
        make_task("mine", found, options)


def test_a_module_of_the_working_directory_hides_nothing_that_is_installed(
    tmp_path, monkeypatch, allowed_code
):
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "own_sort.py").write_text("import json\nfrom llmctl.tasks.sort import Sort as make\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        assert task_from_python("python:own_sort:make", {"size": 2}).name == "sort"
    finally:
        sys.modules.pop("own_sort", None)


@pytest.mark.parametrize("name", ["python:", "python:module", "python::make"])
def test_a_name_without_module_or_attribute_says_the_form(name):
    with pytest.raises(UserError, match="must read python:MODULE:ATTRIBUTE"):
        task_from_python(name, {})
