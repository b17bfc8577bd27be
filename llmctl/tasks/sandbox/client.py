"""The caller's side of the sandbox: start it, ask it, and never wait past the deadline.

The sandbox is a fresh Python process (`llmctl.tasks.sandbox.server`) that loads what a judge needs once
and forks a child for every question. The kernel kills the child at the deadline, C code or not, so a
question never costs more and the next one finds the loaded process ready. Questions from several
threads run side by side. The process ends with its parent.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from llmctl.errors import UserError

DEADLINE_S = 0.6  # wall-clock seconds a question may take in the sandbox
_MARGIN_S = 0.25  # for the fork and the way there and back
_LOAD_LIMIT_S = 180.0  # loading a judge's packages on a busy machine
_PING_LIMIT_S = 10.0  # a process that does nothing else answers in milliseconds, and late on a busy machine
_MAX_WARNINGS = 5  # of answers without a verdict; a hostile model can make every one of its answers slow

logger = logging.getLogger(__name__)


class Sandbox:
    """A lazily started, restartable process that judges answers within a deadline.

    Attributes:
        deadline_s: Seconds of wall-clock time for one question, start-up not counted.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self.deadline_s = deadline_s
        self._lock = threading.Lock()  # guards starting, loading and the control socket
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = os.getpid()
        self._loaded: set[tuple[str, tuple[Any, ...]]] = set()
        self._undecided = 0

    @property
    def pid(self) -> int | None:
        """The process id, or None while none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def warm_up(self, judge: str, setup: tuple[Any, ...] = ()) -> float:
        """Start the process and load a judge, so that the first question does not wait for it.

        Args:
            judge: A name in `llmctl.tasks.sandbox.judges.JUDGES`.
            setup: What the judge loads with; picklable.

        Returns:
            Seconds that it took; near 0 where the judge was loaded before.

        Raises:
            UserError: The judge's packages cannot be loaded.
        """
        start = time.monotonic()
        with self._lock:
            self._ensure_loaded(judge, setup)
        return time.monotonic() - start

    def judge(self, judge: str, setup: tuple[Any, ...], question: tuple[Any, ...]) -> Any:
        """Ask a question.

        Args:
            judge: A name in `JUDGES`.
            setup: What the judge was, or is to be, loaded with.
            question: The judge's arguments; picklable.

        Returns:
            The judge's verdict (a JSON value). None where it gave none: the deadline passed, it ran out
            of memory, or it refused the text. A process that does not answer a ping then is replaced with a
            warning, and the question is asked again.

        Raises:
            UserError: The judge's packages cannot be loaded.
        """
        request = pickle.dumps(("judge", judge, setup, question, self.deadline_s))
        for _ in range(2):  # once more where the process itself was killed or stopped from outside
            with self._lock:
                self._ensure_loaded(judge, setup)
                process = self._process
                channel = self._open_channel()
            reply = _exchange(channel, request, self.deadline_s + _MARGIN_S) if channel else None
            if reply is not None:
                return json.loads(reply)["value"]
            with self._lock:
                # Another thread may have replaced the process meanwhile: then this question died with it.
                if process is self._process and self._is_responsive():
                    self._warn_undecided()
                    return None
        self._warn_undecided()
        return None

    def _is_responsive(self) -> bool:
        """Whether the process answers a ping; one that is gone or does not answer is ended with a warning."""
        if not self._is_alive():
            logger.warning("the sandbox process died; starting it again")
            return False
        channel = self._open_channel()
        ping = pickle.dumps(("ping", "", (), (), 0.0))
        if channel is not None and _exchange(channel, ping, _PING_LIMIT_S) is not None:
            return True
        logger.warning("the sandbox process does not answer; it is replaced, and the question is asked again")
        self._stop()
        return False

    def _warn_undecided(self) -> None:
        """Say that an answer has no verdict and so counts as wrong; only the first few times."""
        self._undecided += 1
        if self._undecided <= _MAX_WARNINGS:
            logger.warning(
                "the check of an answer was refused or took more than %g s: the answer counts as wrong%s",
                self.deadline_s,
                "; further ones are not told" if self._undecided == _MAX_WARNINGS else "",
            )

    def close(self) -> None:
        """End the process; a later question starts a new one."""
        with self._lock:
            self._stop()

    def _ensure_loaded(self, judge: str, setup: tuple[Any, ...]) -> None:
        if not self._is_alive():
            self._start()
        if (judge, setup) in self._loaded:
            return
        if self._loaded and not self._is_responsive():  # a stopped process would not load anything
            self._start()
        channel = self._open_channel()
        request = pickle.dumps(("load", judge, setup, (), 0.0))
        reply = _exchange(channel, request, _LOAD_LIMIT_S) if channel else None
        if reply is None:
            self._stop()
            raise UserError(
                f"the sandbox for {judge!r} checks did not start: see whether "
                f"`{sys.executable} -m llmctl.tasks.sandbox.server` runs on this machine"
            )
        error = json.loads(reply).get("error")
        if error:
            raise UserError(f"{judge!r} checks cannot be loaded: {error}")
        self._loaded.add((judge, setup))

    def _start(self) -> None:
        self._stop()
        ours, theirs = socket.socketpair()
        # -P and an explicit path: the same modules as here, nothing from the working directory.
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join([root, *(entry for entry in sys.path if entry and entry != root)])
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            # A session of its own: Ctrl-C at the terminal is for the parent, which then closes the socket.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "llmctl.tasks.sandbox.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._control, self._owner = ours, os.getpid()

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._process = self._control = None
        self._loaded.clear()

    def _is_alive(self) -> bool:
        """Whether the process is there; its end closes the control socket."""
        control = self._control
        if control is None or self._owner != os.getpid():
            return False
        try:
            return control.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _open_channel(self) -> socket.socket | None:
        """A socket pair for one question: the other end goes to the process. None where it's gone."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"q"], [theirs.fileno()])  # type: ignore[arg-type]
            except OSError:
                ours.close()
                return None
        return ours


def _exchange(channel: socket.socket, request: bytes, limit_s: float) -> bytes | None:
    """Send a request and read the reply to its end; None where none came within the limit."""
    end = time.monotonic() + limit_s
    reply = bytearray()
    with channel:
        try:
            channel.settimeout(limit_s)
            channel.sendall(struct.pack("!Q", len(request)) + request)
            while True:
                channel.settimeout(max(end - time.monotonic(), 1e-3))
                chunk = channel.recv(65536)
                if not chunk:
                    break
                reply += chunk
        except OSError:  # the limit passed, or the other side is gone
            return None
    return bytes(reply) or None


_sandbox = Sandbox()


def sandbox() -> Sandbox:
    """The sandbox of this process, shared by all tasks and threads."""
    return _sandbox


def _after_fork() -> None:
    """A forked child starts a sandbox of its own: the parent's answers only the parent."""
    global _sandbox
    _sandbox = Sandbox(_sandbox.deadline_s)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _sandbox.close())
