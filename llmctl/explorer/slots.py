"""Slots: how many jobs run at the same time, and the line of those that wait."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from llmctl.errors import UserError
from llmctl.explorer.events import Event, StateChanged
from llmctl.explorer.turns import LOOK_S, Stopped


class Waiter(Protocol):
    """What a slot needs to know of a job."""

    @property
    def is_stopping(self) -> bool:
        """Whether the job is to end."""
        ...

    def say(self, event: Event) -> None:
        """Send an event to the page."""
        ...


class Slots:
    """How many jobs run at a time; the others wait in order and know their place."""

    def __init__(self, count: int, waiting: int) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Waiter] = deque()
        self._count, self._free, self._most = count, count, waiting

    @property
    def running(self) -> int:
        """The number of jobs that have a slot."""
        return self._count - self._free

    def join(self, job: Waiter) -> None:
        """Stand in line.

        Raises:
            UserError: The line is full.
        """
        with self._changed:
            if len(self._queue) >= self._most:
                raise UserError(f"{self._most} searches wait already, and no more may: try again later")
            self._queue.append(job)

    def wait(self, job: Waiter) -> None:
        """Wait until a slot is free, for a job that has joined.

        Raises:
            Stopped: The job is to end.
        """
        with self._changed:
            told = -1
            while not (self._free > 0 and self._queue[0] is job):
                if (place := self._queue.index(job)) != told:
                    job.say(StateChanged("waiting", place=place + 1))
                    told = place
                if job.is_stopping:
                    self._queue.remove(job)
                    self._changed.notify_all()
                    raise Stopped
                self._changed.wait(LOOK_S)
            self._queue.popleft()
            self._free -= 1
            self._changed.notify_all()

    def leave(self) -> None:
        """Free a slot."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()
