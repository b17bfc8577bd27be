"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere, nothing for programs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

PLAIN_INTERVAL_S = 10.0


class Progress:
    """Counts finished units. Units finished before the start (`done`) do not count towards the rate."""

    def __init__(self, total: int | None, label: str, unit: str, done: int = 0) -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.done = done
        self._before = done
        self._start = time.monotonic()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count finished units.

        Args:
            count: Number of units that have been finished since the last call.
            note: A short note on the state, e.g. "loss 1.21"; it stays until the next note.
        """
        self.done += count

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        elapsed = time.monotonic() - self._start
        return (self.done - self._before) / elapsed if elapsed > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at this rate; None if it is unknown."""
        if self.total is None or self.rate == 0:
            return None
        return max(0, self.total - self.done) / self.rate

    def describe(self) -> str:
        """Describe the progress in one line, e.g. "collect: 30/200 episodes, 1.5 episodes/s, 1:53 left"."""
        of = f"/{self.total}" if self.total is not None else ""
        parts = [f"{self.done}{of} {self.unit}"]
        if self.done > self._before:
            parts.append(format_rate(self.rate, self.unit))
        is_over = self.total is not None and self.done >= self.total
        if is_over:
            parts.append(f"{format_seconds(time.monotonic() - self._start)} in total")
        elif self.left_s is not None:
            parts.append(f"{format_seconds(self.left_s)} left")
        return f"{self.label}: {', '.join(parts)}"


class _Plain(Progress):
    """At most one line per interval, and one at the end."""

    def __init__(self, total: int | None, label: str, unit: str, done: int, stream: TextIO) -> None:
        super().__init__(total, label, unit, done)
        self._stream = stream
        self._note = ""
        self._last = self._start

    def advance(self, count: int = 1, note: str | None = None) -> None:
        super().advance(count, note)
        self._note = self._note if note is None else f", {note}"
        if time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self.print()

    def print(self) -> None:
        self._last = time.monotonic()
        print(self.describe() + self._note, file=self._stream, flush=True)


@contextlib.contextmanager
def progress(
    total: int | None,
    label: str,
    unit: str,
    *,
    done: int = 0,
    quiet: bool = False,
    stream: TextIO | None = None,
) -> Iterator[Progress]:
    """Show progress while the block runs; call `advance` on the object that it yields.

    Args:
        total: Total number of units; None if it is unknown.
        label: Name of the activity, e.g. "collect".
        unit: Name of the units in the plural, e.g. "episodes".
        done: Number of units that an earlier start has finished.
        quiet: Show nothing, e.g. with `--json`.
        stream: Where to write; None is stderr, so that stdout holds results only.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        yield Progress(total, label, unit, done)
    elif stream.isatty():
        with _bar(total, label, unit, done, stream) as bar:
            yield bar
    else:
        plain = _Plain(total, label, unit, done, stream)
        try:
            yield plain
        finally:
            plain.print()


def format_rate(rate: float, unit: str) -> str:
    """Format a rate: "3.4 episodes/s", or per minute if it is slow."""
    if rate >= 0.1 or rate == 0:
        return f"{rate:.3g} {unit}/s"
    return f"{rate * 60:.3g} {unit}/min"


def format_seconds(seconds: float) -> str:
    """Format a duration: "4.2 s", "1:53" or "2:05:09"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def _bar(total: int | None, label: str, unit: str, done: int, stream: TextIO) -> Iterator[Progress]:
    """A Rich bar with the text of `Progress.describe`."""
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class Words(rich_progress.ProgressColumn):
        max_refresh = 0.5

        def render(self, task: rich_progress.Task) -> Text:
            return Text(state.describe() + task.fields["note"])

    class Bar(Progress):
        def advance(self, count: int = 1, note: str | None = None) -> None:
            super().advance(count, note)
            bars.update(task, completed=self.done)
            if note is not None:
                bars.update(task, note=f", {note}")

    state = Bar(total, label, unit, done)
    columns = (rich_progress.SpinnerColumn(), Words(), rich_progress.BarColumn(bar_width=30))
    with rich_progress.Progress(*columns, console=Console(file=stream)) as bars:
        task = bars.add_task(label, total=total, completed=done, note="")
        yield state
