import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from llmctl.errors import UserError
from llmctl.tasks.sandbox import DEADLINE_S, Sandbox, sandbox

RIGHT = ("x(x+1)", "x^2+x")


@pytest.fixture(scope="module")
def box():
    box = sandbox()  # the shared one: other tests need it too, and starting it takes a second or more
    box.warm_up("latex")
    return box


def ask(box, *question):
    return box.judge("latex", (), question)


def test_nothing_starts_before_it_is_needed():
    assert Sandbox().pid is None


def test_a_loaded_judge_stays_ready_when_it_is_warmed_up_again(box):
    pid = box.pid
    box.warm_up("latex")
    assert box.pid == pid
    assert ask(box, *RIGHT) is True


@pytest.mark.timeout(120)  # what must not hang
@pytest.mark.parametrize(
    "formula", ["9^{9^{9^{9}}}", "7" * 1_000_000 + "!", "\\{" * 300, "((((9^9)^9)^9)^9)^9"]
)
def test_a_question_ends_at_the_deadline_and_the_next_one_finds_the_process_ready(box, formula):
    pid = box.pid
    assert ask(box, formula, "x") is not True
    assert ask(box, *RIGHT) is True
    assert box.pid == pid


@pytest.mark.timeout(120)  # what must not hang
def test_hostile_questions_from_threads_all_end(box):
    verdicts = []

    def work(question):
        verdicts.append((question, ask(box, *question)))

    slow = ("7" * 1_000_000 + "!", "x")
    threads = [threading.Thread(target=work, args=(question,)) for question in (slow, slow, slow, slow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts) == 4
    assert {verdict for _, verdict in verdicts} <= {None, False}


def test_threads_get_their_own_answers(box):
    wrong = ("x(x+1)", "x^2-x")
    answers = []

    def work(question, expected):
        answers.extend(ask(box, *question) is expected for _ in range(5))

    threads = [threading.Thread(target=work, args=pair) for pair in ((RIGHT, True), (wrong, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 10


def test_a_killed_process_is_started_again(box):
    os.kill(box.pid, signal.SIGKILL)
    assert ask(box, *RIGHT) is True


@pytest.mark.slow
def test_a_process_killed_during_a_question_is_asked_again(box):
    killer = threading.Timer(0.2, os.kill, (box.pid, signal.SIGKILL))
    before = box.pid
    killer.start()
    ask(box, "7" * 1_000_000 + "!", "x")
    killer.join()
    assert ask(box, *RIGHT) is True
    assert box.pid != before


def test_a_forked_child_gets_a_sandbox_of_its_own():
    parent = sandbox()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if sandbox() is not parent and sandbox().pid is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox() is parent


@pytest.mark.slow
def test_a_judge_that_can_not_be_loaded_says_why(box):
    with pytest.raises(UserError, match="'gym' checks cannot be loaded: KeyError: 'nothing'"):
        box.warm_up("gym", ("nothing", "{}"))


@pytest.mark.slow
def test_the_process_ends_with_its_parent():
    code = (
        "import os, signal; from llmctl.tasks.sandbox import sandbox; sandbox().warm_up('latex');"
        "print(sandbox().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(run.stdout)
    end = time.monotonic() + 120
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "still there"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_not_run_twice(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom llmctl.tasks.sandbox import sandbox\n"
        "print(sandbox().judge('latex', (), ('x(x+1)', 'x^2+x')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
    )
    assert run.stdout.split() == ["once", "True"]


@pytest.mark.parametrize(
    "attack",
    [
        "lambda: eval('1+1')",
        "lambda: exec('x=1')",
        "lambda: __import__('os').system('true')",
        "lambda: __import__('subprocess').run(['true'])",
        "lambda: open('PWNED', 'w')",
        "lambda: __import__('socket').socket().connect(('127.0.0.1', 1))",
        "lambda: __import__('os').fork()",
    ],
)
def test_a_child_runs_no_text_and_touches_nothing(attack):
    code = (
        "import sys; from llmctl.tasks.sandbox.server import _forbid\n"
        f"attack = {attack}\nimport subprocess, socket\nsys.addaudithook(_forbid)\n"
        "try: attack()\nexcept PermissionError: print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "refused"


def test_the_deadline_leaves_room_within_a_second():
    assert DEADLINE_S < 0.75


@pytest.mark.timeout(120)  # what must not hang
def test_a_stopped_process_is_replaced_and_the_question_asked_again(box, monkeypatch, caplog):
    from llmctl.tasks.sandbox import client

    monkeypatch.setattr(client, "_PING_LIMIT_S", 0.5)
    before = box.pid
    os.kill(before, signal.SIGSTOP)
    assert ask(box, *RIGHT) is True
    assert box.pid != before
    assert "does not answer; it is replaced, and the question is asked again" in caplog.text


@pytest.mark.timeout(120)  # what must not hang
def test_an_answer_without_a_verdict_is_told(box, caplog, monkeypatch):
    monkeypatch.setattr(box, "_undecided", 0)
    assert ask(box, "7" * 1_000_000 + "!", "x") is not True
    assert "the answer counts as wrong" in caplog.text
