import subprocess
import sys

import pytest

from llmctl.errors import UserError
from llmctl.tasks import Task, get_task, list_tasks


def test_every_task_of_the_list_says_what_it_is_and_needs():
    infos = {info.name: info for info in list_tasks()}
    assert {"sort", "gsm8k", "math", "svamp", "jsonl", "gym:<dataset>"} <= set(infos)
    assert all(info.description and info.splits for info in infos.values())
    assert infos["sort"].needs == "" and "path=" in infos["gsm8k"].needs


@pytest.mark.parametrize(
    ("name", "nearest"), [("gsm", "gsm8k"), ("srt", "sort"), ("MATH", "math"), ("gyms", "gym:<dataset>")]
)
def test_an_unknown_name_gives_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"the nearest is '{nearest}': `llmctl tasks list`"):
        get_task(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sort", {"max_len": 3}, "sort has no option 'max_len'; the nearest is 'max_length'"),
        ("sort", {"path": "x"}, "sort got a path, but its problems are generated"),
        ("gsm8k", {"pth": "x"}, "gsm8k has no option 'pth'; the nearest is 'path'"),
        ("gsm8k", {"path": "/no/such/file"}, "no file or folder at /no/such/file"),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(UserError, match=message):
        get_task(name, **options)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(
        "from llmctl.tasks import get_task\n"
        "def make(length=3): return get_task('sort', max_length=length)\n"
        "ready = get_task('sort', size=7)\n"
        "def broken(): return 5\n"
        "number = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_tasks", None)


def test_a_task_comes_from_code_in_the_working_directory(own_module):
    made = get_task("python:own_tasks:make", length=4)
    assert isinstance(made, Task)
    assert len(get_task("python:own_tasks:ready")) == 7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("python:own_tasks", {}, "must read python:MODULE:ATTRIBUTE"),
        ("python:no_such_module:make", {}, "module 'no_such_module' can't be imported"),
        ("python:own_tasks:missing", {}, "module 'own_tasks' has no 'missing'"),
        ("python:own_tasks:number", {}, "is a int, but a task or a callable"),
        ("python:own_tasks:broken", {}, "is a int without name, __iter__, problems, conversation, check"),
        ("python:own_tasks:make", {"size": 3}, "can't take the options given"),
    ],
)
def test_mistakes_with_own_code_are_named(own_module, name, options, message):
    with pytest.raises(UserError, match=message):
        get_task(name, **options)


def test_importing_tasks_loads_nothing_heavy():
    code = (
        "import sys, llmctl.tasks as t; t.get_task('sort'); t.list_tasks();"
        "heavy = {'torch', 'datasets', 'sympy', 'numpy', 'math_verify', 'reasoning_gym'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]"
