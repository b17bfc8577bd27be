"""Where shards are computed: in this process, or in several. Each worker holds one sampler.

A pool knows workers by number and nothing of the plan; `dispatch` decides who computes what.
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

from llmctl.jobs.records import Outcome, Shard
from llmctl.jobs.spec import JobRecipe
from llmctl.jobs.worker import OpenSampler, Worker


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and with it what it was computing."""

    reason: str


@dataclass(frozen=True)
class Crash:
    """A defect of the code in a worker: its traceback."""

    text: str


Event = tuple[int, Outcome | Lost]  # which worker, and what came of the oldest of its shards


class WorkerPool(Protocol):
    """Workers that compute shards in the order in which they were given to them."""

    workers: int

    def submit(self, worker: int, shard: Shard) -> None:
        """Hand a shard to a worker; returns at once."""
        ...

    def wait(self) -> Sequence[Event]:
        """Block until something has happened; only called while something is in flight."""
        ...

    def restart(self, worker: int) -> None:
        """Put a new worker in the place of a lost one."""
        ...

    def close(self) -> None:
        """End all workers; calling it twice is harmless."""
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
        """This process can not be lost and go on."""

    def close(self) -> None:
        """See `WorkerPool.close`."""
        self._worker.close()


class ProcessPool:
    """Workers in processes of their own on this machine.

    Args:
        recipe: Of the job.
        workers: How many.
        open_model: A function of a module, so that a new process can import it.
    """

    def __init__(self, recipe: JobRecipe, workers: int, open_model: OpenSampler) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._given = (recipe, open_model)
        self._running: dict[int, tuple[Any, Connection]] = {}
        for worker in range(workers):
            self.restart(worker)

    def submit(self, worker: int, shard: Shard) -> None:
        """See `WorkerPool.submit`; the loss of a worker is told by `wait`."""
        try:
            self._running[worker][1].send(shard)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is dead: its end of the pipe says so when it is read

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
        process = self._context.Process(target=_serve, args=(there, threads, *self._given), daemon=True)
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


def _serve(connection: Connection, threads: str, recipe: JobRecipe, open_model: OpenSampler) -> None:
    """A worker process: shards in, outcomes out, until the other end is closed."""
    import signal

    os.environ.setdefault("OMP_NUM_THREADS", threads)  # torch is not imported yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(recipe, open_model)
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
