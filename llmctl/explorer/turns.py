"""Turns on the model: one thread computes at a time, questions before searches, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

LOOK_S = 0.1  # seconds between two looks of a thread that waits


class Stopped(BaseException):
    """The job is to end now. No Exception, so that no search takes it for a failure of the model."""


class Turns:
    """A fair lock with two queues: questions go before searches, each in the order of their requests."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: tuple[deque[object], deque[object]] = (deque(), deque())
        self._is_taken = False

    def acquire(self, *, is_question: bool = False, has_gone: Callable[[], bool] = lambda: False) -> None:
        """Wait for a turn.

        Args:
            is_question: Go before the searches.
            has_gone: Whether the turn is no longer wanted; called ten times per second.

        Raises:
            Stopped: The turn is no longer wanted.
        """
        ticket = object()
        queue = self._queues[0 if is_question else 1]
        with self._changed:
            queue.append(ticket)
            while self._is_taken or self._next() is not ticket:
                self._changed.wait(LOOK_S)
                if has_gone():
                    queue.remove(ticket)
                    self._changed.notify_all()
                    raise Stopped
            queue.popleft()
            self._is_taken = True

    def release(self) -> None:
        """End the turn."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()

    def is_wanted(self, *, by_questions: bool = False) -> bool:
        """Whether another thread waits for a turn."""
        with self._changed:
            return bool(self._queues[0]) if by_questions else self._next() is not None

    def _next(self) -> object | None:
        return next((queue[0] for queue in self._queues if queue), None)
