import subprocess
import sys

import pytest

from llmctl.errors import UserError
from llmctl.tasks import TASKS, Task, get_task, list_tasks


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
def own_module(tmp_path, monkeypatch, allowed_code):
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
        ("python:no_such_module:make", {}, "module 'no_such_module' cannot be imported"),
        ("python:own_tasks:missing", {}, "module 'own_tasks' has no 'missing'"),
        ("python:own_tasks:number", {}, "is a int, but a task or a callable"),
        ("python:own_tasks:broken", {}, "is a int without name, __iter__, problems, conversation, check"),
        ("python:own_tasks:make", {"size": 3}, "cannot take the options given"),
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


OWN_PACKAGE = '''
from llmctl.tasks import TaskInfo, get_task


class Doubled:
    """Lists of two numbers, sorted."""

    info = TaskInfo("doubled", "a task of another package", "nothing", ("train", "test"))

    def __new__(cls, size=5):
        return get_task("sort", max_length=2, min_length=2, size=size)


def plain():
    """A function without info."""
    return get_task("sort")
'''


@pytest.fixture
def installed_package(tmp_path, monkeypatch):
    """A package with three entry points, one of them broken, put on the path as an installer would."""
    (tmp_path / "other_tasks.py").write_text(OWN_PACKAGE)
    info = tmp_path / "other_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[llmctl.tasks]\n"
        "doubled = other_tasks:Doubled\nplain = other_tasks:plain\nbroken = other_tasks:missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(TASKS, "_found", None)
    loaded = dict(TASKS._loaded)
    monkeypatch.setattr(TASKS, "_loaded", loaded)
    yield
    sys.modules.pop("other_tasks", None)


def test_a_task_of_an_installed_package_is_listed_and_made(installed_package):
    infos = {info.name: info for info in list_tasks()}
    assert infos["doubled"].description == "a task of another package"
    assert infos["plain"].description == "A function without info."
    assert len(get_task("doubled", size=3)) == 3
    assert isinstance(get_task("plain"), Task)
    with pytest.raises(UserError, match="doubled has no option 'sise'; the nearest is 'size'"):
        get_task("doubled", sise=3)


def test_llmctl_tasks_list_shows_a_task_of_an_installed_package(installed_package):
    from typer.testing import CliRunner

    from llmctl.cli.tasks import app

    found = CliRunner().invoke(app, ["list", "--json"])
    assert "doubled" in found.output and "a task of another package" in found.output


def test_a_broken_package_is_listed_with_the_reason_and_refused_when_it_is_used(installed_package):
    (broken,) = [info for info in list_tasks() if info.name == "broken"]
    assert broken.description.startswith("cannot be used: the task 'broken' of the package other-tasks")
    with pytest.raises(UserError, match="reinstall other-tasks"):
        get_task("broken")
