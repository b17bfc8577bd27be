"""Recording finished shards while the next ones are sampled: first a part, then its journal line."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from types import TracebackType

from llmctl.jobs.attempts import PARTS, SHARDS, ShardLine, part_path, shard_key
from llmctl.jobs.records import Done
from llmctl.jobs.results import part_digest
from llmctl.runs import Run
from llmctl.runs.files import make_folder, write_bytes

_WAITING = 16  # maximum finished shards in memory; beyond them, sampling waits for the disk


class Recorder:
    """Writes finished shards to a run's folder while the next ones are computed.

    The journal has one writer: the recorder's thread, in the process that holds the run's lock. An error of
    the disk is raised at the next `put`, or on leaving the context.
    """

    def __init__(self, run: Run) -> None:
        self._journal = run.journal(SHARDS)
        self._attempts = Counter(shard_key(name) for name in self._journal.keys)
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
            # After an error, shards are only taken off the queue, so that no one waits for room.
            if self._error is None:
                try:
                    self._record(done)
                except BaseException as error:  # raised again in the thread that calls `put`
                    self._error = error

    def _record(self, done: Done) -> None:
        data = done.encoded()
        # A later attempt has a part of its own: killed between its part and its line, the earlier one counts.
        attempt = self._attempts[done.shard.key]
        name = done.shard.key if attempt == 0 else f"{done.shard.key}.{attempt}"
        line = ShardLine(
            name,
            done.shard,
            rows=done.rows,
            digest=part_digest(data),
            tokens=done.tokens,
            prompt_tokens=done.prompt_tokens,
            seconds=round(done.seconds, 4),
            engine=done.engine,
            errors=done.errors,
        )
        write_bytes(part_path(self._folder.parent, name), data)
        self._journal.append(name, line.to_dict())
        self._attempts[done.shard.key] += 1
