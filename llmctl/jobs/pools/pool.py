"""Pools of workers: one in this process, or several processes. Each worker holds one sampler.

A pool knows workers by index and nothing about the plan; `dispatch` decides who computes what.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from llmctl.jobs.pools.worker import OpenSampler, Worker
from llmctl.jobs.records import Outcome, Shard
from llmctl.jobs.spec import JobRecipe
from llmctl.trust import Permissions, permissions


@dataclass(frozen=True)
class Lost:
    """A worker has ended, and the shards that it held are lost."""

    reason: str


@dataclass(frozen=True)
class Crash:
    """A bug in a worker, with its traceback."""

    text: str


Event = tuple[int, Outcome | Lost]  # index of the worker, and the outcome of the oldest of its shards


class WorkerPool(Protocol):
    """Workers that each compute their shards in the order of submission."""

    workers: int

    def submit(self, worker: int, shard: Shard) -> None:
        """Hand a shard to a worker without waiting for it."""
        ...

    def wait(self) -> Sequence[Event]:
        """Wait for at least one event; may only be called while a shard is in flight."""
        ...

    def restart(self, worker: int) -> None:
        """Replace a lost worker by a new one."""
        ...

    def close(self) -> None:
        """End all workers; may be called twice."""
        ...


class LocalPool:
    """One worker in this process: it computes while `wait` is called."""

    workers = 1

    def __init__(self, recipe: JobRecipe, open_model: OpenSampler) -> None:
        self._worker = Worker(recipe, open_model, encodes_later=True)
        self._queue: deque[Shard] = deque()

    def submit(self, worker: int, shard: Shard) -> None:
        """See `WorkerPool.submit`."""
        self._queue.append(shard)

    def wait(self) -> Sequence[Event]:
        """See `WorkerPool.wait`."""
        return [(0, self._worker.compute(self._queue.popleft()))]

    def restart(self, worker: int) -> None:
        """Do nothing: a job does not outlive its own process."""

    def close(self) -> None:
        """See `WorkerPool.close`."""
        self._worker.close()


class ProcessPool:
    """Workers in processes of their own on this machine.

    Args:
        recipe: The job's recipe.
        workers: Number of processes.
        open_model: Opens a sampler; must be importable, since a new process looks it up by name.
    """

    def __init__(self, recipe: JobRecipe, workers: int, open_model: OpenSampler) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._given = (recipe, open_model)
        self._running: dict[int, tuple[Any, Connection]] = {}
        for worker in range(workers):
            self.restart(worker)

    def submit(self, worker: int, shard: Shard) -> None:
        """See `WorkerPool.submit`; `wait` reports the loss of a worker."""
        try:
            self._running[worker][1].send(shard)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker has ended, which `wait` finds when it reads the pipe

    def wait(self) -> Sequence[Event]:
        """See `WorkerPool.wait`."""
        ends = {connection: worker for worker, (_, connection) in self._running.items()}
        events: list[Event] = []
        for end in wait(list(ends)):
            worker = ends[end]  # type: ignore[index]
            try:
                found = self._running[worker][1].recv()
            except (EOFError, ConnectionResetError):
                process = self._running[worker][0]
                process.join(timeout=10)
                found = Lost(f"worker process {process.pid} ended with code {process.exitcode}")
            if isinstance(found, Crash):
                raise RuntimeError(f"a worker process failed:\n{found.text}")
            events.append((worker, found))
        return events

    def restart(self, worker: int) -> None:
        """See `WorkerPool.restart`."""
        here, there = self._context.Pipe()
        threads = str(max(1, round(self._given[0].workers.cpus)))
        process = self._context.Process(
            target=_serve, args=(there, threads, permissions(), *self._given), daemon=True
        )
        process.start()
        there.close()
        if worker in self._running:
            self._running[worker][1].close()
        self._running[worker] = (process, here)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        for process, connection in self._running.values():
            connection.close()
            process.terminate()
        for process, _ in self._running.values():
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._running = {}


def _serve(
    connection: Connection,
    threads: str,
    allowed: Permissions,
    recipe: JobRecipe,
    open_model: OpenSampler,
) -> None:
    """A worker process: shards in, outcomes out, until the other end is closed."""
    import signal

    os.environ.setdefault("OMP_NUM_THREADS", threads)  # torch is not imported yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(recipe, open_model, allowed=allowed)
        while True:
            connection.send(worker.compute(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except BaseException:
        connection.send(Crash(traceback.format_exc()))
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
