"""The sandbox process: load judges once, fork a child for every question.

Run by `llmctl.tasks.sandbox.client` with the number of an open control socket. Requests are pickles from
the parent, which is trusted; replies are JSON, so that nothing a child says is ever unpickled.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

from llmctl.tasks.sandbox.judges import JUDGES

MEMORY_BYTES = 2 * 1024**3  # address space a child may add to what is loaded
_PARENT_POLL_S = 5.0  # how soon an idle process notices an orphaned socket
_REQUEST_LIMIT_S = 1.0

_States = dict[tuple[str, tuple[Any, ...]], Callable[..., Any]]
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.", "ctypes.")


def serve(control: socket.socket) -> None:
    """Answer requests until the parent closes its end of the control socket or is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    parent = os.getppid()
    judges: _States = {}
    while os.getppid() == parent:
        if not select.select([control], [], [], _PARENT_POLL_S)[0]:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as channel:
            try:
                verb, name, setup, question, deadline_s = _receive(channel)
            except (OSError, EOFError, pickle.UnpicklingError):
                continue  # the asking thread gave up
            if verb == "ping":
                _send(channel, {"value": True})
            elif verb == "load":
                _send(channel, _load(judges, name, setup))
            elif os.fork() == 0:
                control.close()
                _judge_and_exit(judges.get((name, setup)), question, deadline_s, channel)


def _receive(channel: socket.socket) -> Any:
    channel.settimeout(_REQUEST_LIMIT_S)
    with channel.makefile("rb") as stream:
        (size,) = struct.unpack("!Q", stream.read(8).ljust(8, b"\0"))
        return pickle.loads(stream.read(size))


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    try:
        channel.sendall(json.dumps(reply).encode())
    except OSError:  # the asking thread gave up
        return


def _load(judges: _States, name: str, setup: tuple[Any, ...]) -> dict[str, Any]:
    try:
        judges[name, setup] = JUDGES[name](*setup)
    except Exception as error:  # whatever an import or a data set may raise is told to the parent
        return {"error": "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")}
    gc.collect()
    gc.freeze()  # shared pages stay shared in the children
    return {"value": True}


def _judge_and_exit(
    judge: Callable[..., Any] | None, question: tuple[Any, ...], deadline_s: float, channel: socket.socket
) -> None:
    """In the child: judge under the limits, reply, and end without the parent's clean-up."""
    # SIGALRM's default action is the kernel's: it ends the process inside C code too.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    _limit_memory()
    sys.addaudithook(_forbid)
    try:
        if judge is not None:
            _send(channel, {"value": judge(*question)})
    except BaseException:  # a refused text, no memory, too deep: the parent reads the silence as no verdict
        os._exit(1)
    os._exit(0)


def _limit_memory() -> None:
    try:
        with open("/proc/self/statm") as statm:
            loaded = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (loaded + MEMORY_BYTES, loaded + MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):  # not Linux: the deadline alone limits a child
        return


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse, whatever library asks: code made from text, other processes, the network, written files."""
    if event == "exec" and getattr(arguments[0], "co_filename", "<string>").startswith("<string"):
        raise PermissionError("text is not run as code")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise PermissionError("files are not written")
    if event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is not for a check")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        serve(_control)
