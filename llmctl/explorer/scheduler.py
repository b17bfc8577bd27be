"""Schedules requests on the models: one thread computes at a time, first come, first served.

A search is a job with a thread of its own. Before every forward pass it lets whoever waits go first, and
before every layer it looks whether it should stop, so a question is answered between two passes and a search
stops in the middle of one. Neither asks anything of the search: both are hooks on the model's modules.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmctl.errors import LlmctlError, UserError

logger = logging.getLogger(__name__)
_LOOK = 0.1  # seconds between two looks of who waits
_here = threading.local()  # .job: the job that this thread works on


class Stopped(BaseException):
    """The job is to end now. No Exception, so that no search takes it for a failure of the model."""


class Turns:
    """A fair lock with two queues: questions go before searches, each in the order of asking."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: tuple[deque[object], deque[object]] = (deque(), deque())
        self._is_taken = False

    def acquire(self, *, is_question: bool = False, has_gone: Callable[[], bool] = lambda: False) -> None:
        """Wait for one's turn.

        Args:
            is_question: Go before the searches.
            has_gone: Whether the turn is wanted no longer; looked at ten times a second.

        Raises:
            Stopped: It is wanted no longer.
        """
        ticket = object()
        queue = self._queues[0 if is_question else 1]
        with self._changed:
            queue.append(ticket)
            while self._is_taken or self._next() is not ticket:
                self._changed.wait(_LOOK)
                if has_gone():
                    queue.remove(ticket)
                    self._changed.notify_all()
                    raise Stopped
            queue.popleft()
            self._is_taken = True

    def release(self) -> None:
        """End one's turn."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()

    def is_wanted(self, *, by_questions: bool = False) -> bool:
        """Whether somebody waits for a turn."""
        with self._changed:
            return bool(self._queues[0]) if by_questions else self._next() is not None

    def _next(self) -> object | None:
        return next((queue[0] for queue in self._queues if queue), None)


class Slots:
    """How many jobs run at a time; the others wait in order and are told their place."""

    def __init__(self, count: int, waiting: int) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._count, self._free, self._most = count, count, waiting

    @property
    def running(self) -> int:
        """Jobs that have a slot."""
        return self._count - self._free

    def join(self, job: Job) -> None:
        """Stand in line.

        Raises:
            UserError: The line is full.
        """
        with self._changed:
            if len(self._queue) >= self._most:
                raise UserError(f"{self._most} searches wait already, and no more may: try again later")
            self._queue.append(job)

    def wait(self, job: Job) -> None:
        """Wait until a slot is free, for a job that has joined.

        Raises:
            Stopped: The job is to end.
        """
        with self._changed:
            told = -1
            while not (self._free > 0 and self._queue[0] is job):
                if (place := self._queue.index(job)) != told:
                    job.say("state", state="waiting", place=place + 1)
                    told = place
                if job.is_stopping:
                    self._queue.remove(job)
                    self._changed.notify_all()
                    raise Stopped
                self._changed.wait(_LOOK)
            self._queue.popleft()
            self._free -= 1
            self._changed.notify_all()

    def leave(self) -> None:
        """Free a slot."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()


class Job:
    """A search on its own thread, that can wait, pause, go on and stop.

    Args:
        scheduler: Where it takes its turns.
        kind: What the page calls it, e.g. "search".
        name: Chosen by the page, so that it can tell old news from new.
        work: What to do; it may call the job's verbs.
        send: Takes the news for the page; called from the job's thread.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        kind: str,
        name: str,
        work: Callable[[Job], None],
        send: Callable[[dict[str, Any]], None],
    ) -> None:
        self._scheduler, self.kind, self.name, self._work, self._send = scheduler, kind, name, work, send
        self._may_run = threading.Event()
        self._may_run.set()
        self.is_stopping = False
        self.on_pass: Callable[[], None] | None = None  # called before every forward pass
        self._ticked = 0.0
        self._is_alone = False  # do not let others in
        self._has_turn = self._has_slot = False
        self.seconds = 0.0  # spent at work, pauses aside
        self._thread = threading.Thread(target=self._run, name=f"llmctl-{kind}", daemon=True)

    def start(self) -> None:
        """Begin, or stand in line.

        Raises:
            UserError: The line is full.
        """
        self._scheduler.slots.join(self)
        self._thread.start()

    def say(self, event: str, **content: Any) -> None:
        """News for the page."""
        self._send({"kind": self.kind, "job": self.name, "event": event, **content})

    def pause(self) -> None:
        """Stand still before the next forward pass."""
        self._may_run.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._may_run.set()

    def stop(self) -> None:
        """End as soon as the layer that is being computed is done."""
        self.is_stopping = True
        self._may_run.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Called before every layer.

        Raises:
            Stopped: The job is to end.
        """
        if self.is_stopping:
            raise Stopped

    def step_aside(self) -> None:
        """Called before every forward pass: stop, pause, or let others go first.

        Raises:
            Stopped: The job is to end.
        """
        self.check()
        if self._is_alone:
            return
        if not self._may_run.is_set():
            self._rest()
        if self._scheduler.turns.is_wanted():
            self._release()
            self._acquire()
        self.check()
        now = time.monotonic()
        passed, self._ticked = now - self._ticked, now
        self.seconds += min(passed, 60.0)
        if self.on_pass is not None:
            self.on_pass()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else computes inside the block: for what changes a model for a moment."""
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def _rest(self) -> None:
        """Give slot and turn away until the pause ends."""
        self.say("state", state="paused")
        self._release()
        self._scheduler.slots.leave()
        self._has_slot = False
        self._may_run.wait()
        self._scheduler.slots.join(self)
        self._scheduler.slots.wait(self)
        self._has_slot = True
        self._acquire()
        self._ticked = time.monotonic()
        self.say("state", state="running")

    def _acquire(self) -> None:
        self._scheduler.turns.acquire(has_gone=lambda: self.is_stopping)
        self._has_turn = True

    def _release(self) -> None:
        self._has_turn = False
        self._scheduler.turns.release()

    def _run(self) -> None:
        _here.job = self
        end: dict[str, Any] = {"state": "done"}
        try:
            self._scheduler.slots.wait(self)
            self._has_slot = True
            self._acquire()
            self._ticked = time.monotonic()
            self.say("state", state="running")
            self._work(self)
        except Stopped:
            end = {"state": "stopped"}
        except LlmctlError as error:
            end = {"state": "failed", "error": str(error)}
        except Exception as error:  # a defect: the page says so, the log has the traceback
            logger.exception("a %s failed", self.kind)
            end = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
        finally:
            _here.job = None
            if self._has_turn:
                self._release()
            if self._has_slot:
                self._scheduler.slots.leave()
        self.say("state", **end)


class Scheduler:
    """Turns, slots, and the quick questions that go before the jobs."""

    def __init__(self, running: int, waiting: int, questions: int) -> None:
        self.turns = Turns()
        self.slots = Slots(running, waiting)
        self._open = threading.BoundedSemaphore(questions)

    def between(self) -> None:
        """Called by a long question where others may go before it: other questions do, searches wait."""
        if self.turns.is_wanted(by_questions=True):
            self.turns.release()
            self.turns.acquire(is_question=True)

    def ask(self, question: Callable[[], Any]) -> Any:
        """Answer a quick question on this thread, as soon as the pass that is being computed is done.

        Raises:
            UserError: Too many questions wait.
        """
        if not self._open.acquire(blocking=False):
            raise UserError("too many questions wait for the model: try again in a moment")
        try:
            self.turns.acquire(is_question=True)
            try:
                return question()
            finally:
                self.turns.release()
        finally:
            self._open.release()


def watch(model: Any) -> None:
    """Hook a model, so that jobs that run it step aside before each pass and stop before each layer.

    Args:
        model: Of transformers, with or without an adapter.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.register_forward_pre_hook(lambda *_: _with_job(Job.step_aside))
    for module in base.modules():
        if hasattr(module, "layer_idx"):  # each attention: once a layer
            module.register_forward_pre_hook(lambda *_: _with_job(Job.check))


def _with_job(verb: Callable[[Job], None]) -> None:
    job = getattr(_here, "job", None)
    if job is not None:
        verb(job)
