"""Schedules requests on the models: quick questions are answered between the forward passes of the jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.slots import Slots
from llmctl.explorer.turns import Turns


class Scheduler:
    """Turns on the model, slots for jobs, and the quick questions that go before the jobs.

    Args:
        running: Jobs that run at the same time.
        waiting: Jobs that wait for a slot; more are refused.
        questions: Questions that wait for the model; more are refused.
    """

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
