"""Recording finished shards while the next ones are sampled: first a part, then its journal line."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from llmctl.jobs.records import Done, Shard
from llmctl.jobs.results import Part, part_digest
from llmctl.runs import Run
from llmctl.runs.files import make_folder, write_bytes

SHARDS = "shards"  # the journal
PARTS = "parts"  # the folder
_WAITING = 16  # maximum finished shards in memory; beyond them, sampling waits for the disk


class Recorder:
    """Writes finished shards to a run's folder while the next ones are computed.

    The journal has one writer: the recorder's thread, in the process that holds the run's lock. An error of
    the disk is raised at the next `put`, or on leaving the context.
    """

    def __init__(self, run: Run) -> None:
        self._journal = run.journal(SHARDS)
        self._folder = run.path(PARTS)
        make_folder(self._folder)
        self._queue: queue.Queue[Done | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)

    def put(self, done: Done) -> None:
        """Hand over a shard to be recorded.

        Raises:
            UserError: The disk refused this shard or an earlier one.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(done)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _write(self) -> None:
        while (done := self._queue.get()) is not None:
            if (
                self._error is None
            ):  # after an error, shards are only taken off the queue, so that no one waits for room
                try:
                    self._record(done)
                except BaseException as error:  # raised again in the thread that calls `put`
                    self._error = error

    def _record(self, done: Done) -> None:
        data = done.encoded()
        write_bytes(self._folder / f"{done.shard.key}.parquet", data)
        shard = {name: value for name, value in asdict(done.shard).items() if name != "key"}
        record: dict[str, Any] = {
            **shard,
            "rows": done.rows,
            "digest": part_digest(data),
            "tokens": done.tokens,
            "prompt_tokens": done.prompt_tokens,
            "seconds": round(done.seconds, 4),
            "engine": done.engine,
        }
        self._journal.append(done.shard.key, record)


def recorded_parts(folder: Path, lines: Sequence[dict[str, Any]] | Iterator[dict[str, Any]]) -> list[Part]:
    """The parts that a journal lists."""
    names = ("model", "task", "protocol", "seed", "start", "stop", "key")
    return [
        Part(
            Shard(**{name: line[name] for name in names}),
            folder / PARTS / f"{line['key']}.parquet",
            line["rows"],
            line["digest"],
        )
        for line in lines
    ]
