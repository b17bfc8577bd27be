"""A bound on what the server's log can grow to: so many records per minute of each logger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_NAMES = (
    "asyncio",
    "uvicorn.error",
    "llmctl.explorer.app",
    "llmctl.explorer.jobs",
    "llmctl.explorer.sessions",
    "llmctl.runs.journal",
)
_CHARACTERS = 2_000  # of one message


class LogLimit(logging.Filter):
    """Lets some records of a logger through per minute, and says how many it has left out.

    Args:
        per_minute: Records that pass in a minute.
        now: A clock in seconds.
    """

    def __init__(self, per_minute: int = 20, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._per_minute, self._now = per_minute, now
        self._began, self._passed, self._left_out = now(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; a long message is cut."""
        if self._now() - self._began > 60.0:
            self._began, self._passed = self._now(), 0
        if self._passed >= self._per_minute:
            self._left_out += 1
            return False
        self._passed += 1
        text = record.getMessage()
        note = f" ({self._left_out:,} records before this one were left out)" if self._left_out else ""
        if note or len(text) > _CHARACTERS:
            record.msg, record.args = text[:_CHARACTERS] + note, ()
        self._left_out = 0
        return True


def limit_logs(per_minute: int = 20) -> None:
    """Bound the loggers that clients can make write; called once per process."""
    for name in _NAMES:
        logger = logging.getLogger(name)
        if not any(isinstance(present, LogLimit) for present in logger.filters):
            logger.addFilter(LogLimit(per_minute))


def unlimit_logs() -> None:
    """Take the bounds off again, once nothing is served any more."""
    for name in _NAMES:
        logger = logging.getLogger(name)
        for present in [one for one in logger.filters if isinstance(one, LogLimit)]:
            logger.removeFilter(present)
