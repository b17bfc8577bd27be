"""Jobs: searches with a thread of their own, that can wait, pause, go on and stop.

Before every forward pass a job lets whoever waits go first, and before every layer it looks whether it
should stop, so a question is answered between two passes and a search stops in the middle of one. Neither
asks anything of the search: both are hooks on the model's modules.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmctl.errors import LlmctlError
from llmctl.explorer.events import Event, Message, StateChanged
from llmctl.explorer.scheduler import Scheduler
from llmctl.explorer.turns import Stopped

logger = logging.getLogger(__name__)
_here = threading.local()  # .job: the job that this thread works on


class Job:
    """A search on its own thread, that can wait, pause, go on and stop.

    Args:
        scheduler: Where it takes its turns.
        kind: What the page calls it, e.g. "search".
        name: Chosen by the page, so that it can tell the events of an earlier job from new ones.
        work: The function that does the work; it may call the methods of the job.
        send: Receives the messages for the page; called from the job's thread.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        kind: str,
        name: str,
        work: Callable[[Job], None],
        send: Callable[[Message], None],
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

    def say(self, event: Event) -> None:
        """Send an event to the page."""
        self._send(Message(self.kind, self.name, event))

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
        self.say(StateChanged("paused"))
        self._release()
        self._scheduler.slots.leave()
        self._has_slot = False
        self._may_run.wait()
        self._scheduler.slots.join(self)
        self._scheduler.slots.wait(self)
        self._has_slot = True
        self._acquire()
        self._ticked = time.monotonic()
        self.say(StateChanged("running"))

    def _acquire(self) -> None:
        self._scheduler.turns.acquire(has_gone=lambda: self.is_stopping)
        self._has_turn = True

    def _release(self) -> None:
        self._has_turn = False
        self._scheduler.turns.release()

    def _run(self) -> None:
        _here.job = self
        end = StateChanged("done")
        try:
            self._scheduler.slots.wait(self)
            self._has_slot = True
            self._acquire()
            self._ticked = time.monotonic()
            self.say(StateChanged("running"))
            self._work(self)
        except Stopped:
            end = StateChanged("stopped")
        except LlmctlError as error:
            end = StateChanged("failed", error=str(error))
        except Exception as error:  # a defect: the page says so, the log has the traceback
            logger.exception("a %s failed", self.kind)
            end = StateChanged("failed", error=f"{type(error).__name__}: {error}")
        finally:
            _here.job = None
            if self._has_turn:
                self._release()
            if self._has_slot:
                self._scheduler.slots.leave()
        self.say(end)


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
