import errno
import re
import signal
import subprocess
import sys
import textwrap
import types

import pytest
import typer

from llmctl.cli import app as app_module
from llmctl.errors import EngineError, UserError
from llmctl.runs import Recipe, Run

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm", "matplotlib", "ray", "gradio")


def python(code, *arguments, **options):
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def group(monkeypatch):
    """A command `demo` whose body the test gives."""

    def add(body, name="demo"):
        demo = typer.Typer()
        demo.command()(body)
        module = types.ModuleType(f"llmctl_{name}_for_tests")
        module.app = demo
        module.__spec__ = types.SimpleNamespace(name=module.__name__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(app_module.GROUPS, name, f"{module.__name__}:app")

    return add


def raising(error):
    def body() -> None:
        """A command for tests."""
        raise error

    return body


def test_help_and_import_load_nothing_heavy():
    done = python(
        f"""
        import sys
        import llmctl
        from llmctl.cli import main
        for line in ("--help", "sample --help", "tasks --help", "models show --help", "doctor --help"):
            try:
                main(line.split())
            except SystemExit as end:
                assert not end.code, end.code
        print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
        """
    )
    assert done.stderr == "[]\n"
    for name in ("doctor", "models", "tasks", "sample"):
        assert name in done.stdout


def test_help_is_answered_by_a_process_of_its_own():
    subprocess.run([sys.executable, "-m", "llmctl", "--help"], capture_output=True, check=True, timeout=240)


def test_no_command_shows_the_help(llmctl):
    done = llmctl()
    assert done.code == 0 and "Commands" in done.out


def test_the_version(llmctl):
    from llmctl import __version__

    done = llmctl("--version")
    assert (done.code, done.out) == (0, f"llmctl {__version__}\n")


def test_a_users_mistake_is_one_line_and_exit_code_2(llmctl, group):
    group(raising(UserError("n is 0,\nbut 1 is needed")))
    done = llmctl("demo")
    assert (done.code, done.out, done.err) == (2, "", "error: n is 0, but 1 is needed\n")


@pytest.mark.parametrize("arguments", [("--debug", "demo"), ("demo", "--debug")])
def test_debug_shows_the_traceback(llmctl, group, arguments):
    group(raising(UserError("n is 0")))
    done = llmctl(*arguments)
    assert done.code == 2
    assert done.err.startswith("Traceback") and "raise error" in done.err
    assert done.err.endswith("error: n is 0\n")


def test_a_debug_behind_two_dashes_is_a_prompt(llmctl, group):
    def body(words: list[str]) -> None:
        """A command for tests."""
        typer.echo(words)

    group(body)
    done = llmctl("demo", "--", "--debug")
    assert (done.code, done.out) == (0, "['--debug']\n")


def test_an_engine_that_failed_is_one_line_and_exit_code_1(llmctl, group, monkeypatch):
    monkeypatch.setattr(Run, "was_opened", False)
    group(raising(EngineError("the server answered 500")))
    done = llmctl("demo")
    assert (done.code, done.err) == (1, "error: the server answered 500\n")


@pytest.mark.parametrize(
    ("error", "code", "line"), [(KeyboardInterrupt(), 130, "stopped"), (EngineError("x"), 1, "error: x")]
)
def test_a_command_with_a_run_says_that_it_goes_on(llmctl, group, tmp_path, monkeypatch, error, code, line):
    monkeypatch.setattr(Run, "was_opened", False)

    def body(folder: str = "") -> None:
        """A command for tests."""
        if folder:
            Run.open(folder, Recipe(), "demo").close()
        raise error

    group(body)
    done = llmctl("demo")
    assert (done.code, done.err) == (code, f"{line}\n")
    done = llmctl("demo", "--folder", str(tmp_path / "run"))
    assert (done.code, done.err) == (code, f"{line}; run the same command again to continue\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "a/b"), "cannot use a/b: the disk is full; free some space"),
        (PermissionError(errno.EACCES, "x", "a/b"), "cannot use a/b: permission is denied"),
        (OSError(errno.ENOSPC, "x"), "cannot write: the disk is full"),
    ],
)
def test_a_disk_that_refuses_is_one_line(llmctl, group, error, line):
    group(raising(error))
    done = llmctl("demo")
    assert done.code == 2 and done.err.startswith(f"error: {line}") and done.err.count("\n") == 1


def test_a_defect_keeps_its_traceback(group):
    from llmctl.cli import main

    group(raising(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main(["demo"])


def test_an_exit_code_of_a_command_is_kept(llmctl, group):
    group(raising(typer.Exit(7)))
    assert llmctl("demo").code == 7


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nix"], "error: No such command 'nix'."),
        (["--nix"], "error: No such option:? '?--nix"),
        (["tasks", "show", "--nix"], "error: No such option:? '?--nix"),
        (["tasks", "show"], "error: Missing argument '(name|NAME)'"),
        (["sample", "x", "--n", "two"], "error: Invalid value for '--n'"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(llmctl, arguments, line):
    done = llmctl(*arguments)
    assert done.code == 2 and done.out == ""
    assert re.match(line, done.err) and done.err.count("\n") == 1  # Typer's releases differ in details
    assert "--help" in done.err.split("; see llmctl")[-1]


def test_a_group_without_a_command_shows_its_help(llmctl):
    done = llmctl("tasks")
    assert done.code == 2 and "list" in done.out + done.err and "show" in done.out + done.err


def test_a_group_that_is_not_there_costs_the_others_nothing(llmctl, monkeypatch):
    monkeypatch.setitem(app_module.GROUPS, "ghost", "llmctl.cli.ghost:app")
    done = llmctl("--help")
    assert done.code == 0 and "ghost" not in done.out and "doctor" in done.out
    assert llmctl("ghost").err.startswith("error: No such command 'ghost'")


def test_a_group_that_can_not_be_loaded_says_why_and_costs_the_others_nothing(llmctl, monkeypatch, tmp_path):
    (tmp_path / "llmctl_broken_for_tests.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(app_module.GROUPS, "broken", "llmctl_broken_for_tests:app")
    done = llmctl("--help")
    assert done.code == 0 and "doctor" in done.out and "cannot be imported" in done.out
    done = llmctl("broken", "run", "--any")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "llmctl broken cannot be imported (ModuleNotFoundError: No module named 'a_package" in done.err


PRINTER = """
import sys, types, typer
from llmctl.cli import app, main
demo = typer.Typer()
@demo.command()
def run():
    for number in range(100_000):
        typer.echo("a line of output")
module = types.ModuleType("printer")
module.app = demo
module.__spec__ = types.SimpleNamespace(name="printer")
sys.modules["printer"] = module
app.GROUPS["demo"] = "printer:app"
main(["demo"])
"""


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTER.strip()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "a line of output\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 141


SLEEPER = PRINTER.replace(
    'for number in range(100_000):\n        typer.echo("a line of output")',
    'import time; print("ready", flush=True); time.sleep(30)',
)


def test_a_real_ctrl_c_ends_with_130_and_without_a_traceback():
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER.strip()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "stopped\n")


def test_a_full_output_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTER.strip()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.stderr == (
        "error: cannot write: the disk is full; free some space and run the same command again\n"
    )
    assert done.returncode == 2
