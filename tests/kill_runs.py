"""Run a command in forked children and kill them, phase by phase; for the scripts `killed.py`.

Forking after the imports makes a start cheap. Each kill waits for a file of a phase to change, so that
every phase is hit, and then for a random moment.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from llmctl.cli import main


def state(folder: Path, pattern: str) -> list[tuple[str, int]]:
    found = []
    for path in folder.glob(pattern):
        try:
            found.append((str(path), path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return sorted(found)


def start(command: Sequence[str], recipe: str, folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            main([*command, recipe, "--run", str(folder), "--json"])
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def kill_after(pid: int, folder: Path, pattern: str, delay_s: float) -> bool:
    """Kill a child once a file has changed; False where the child ended before."""
    before = state(folder, pattern)
    while state(folder, pattern) == before:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def kill_in_every_phase(command: Sequence[str], watched: Sequence[str]) -> None:
    """Take RECIPE FOLDER SEED from the command line; print the files after which a run was killed."""
    recipe, folder, draw = sys.argv[1], Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    real = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    killed = []
    for pattern in watched:
        pid = start(command, recipe, folder)
        if kill_after(pid, folder, pattern, draw.choice((0.0, draw.uniform(0, 0.08)))):
            killed.append(pattern)
    _, status = os.waitpid(start(command, recipe, folder), 0)
    os.write(real, json.dumps({"killed": killed, "code": os.waitstatus_to_exitcode(status)}).encode())
