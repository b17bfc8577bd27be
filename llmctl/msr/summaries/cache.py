"""The cache of summaries: answers of models, kept across runs by the content of the conversation.

A key is the hash of the model's fingerprint, the engine, the conversation (pictures by their bytes) and
the sampling settings, seed included. So a cached answer is the answer that would be computed. One SQLite
file holds all entries; several processes may use it at once, and a killed process leaves it intact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.models import cache_dir
from llmctl.msr.settings import CacheSettings
from llmctl.sampling.types import Settings

_WAIT_S = 60.0  # longest wait for another process that writes
_KEPT = 0.9  # share of the limit that is kept when entries are dropped
_ROW_BYTES = 200  # size of an entry beside its text: key, times, index
_KEYS_PER_QUERY = 500  # SQLite allows at least 999 variables

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, bytes INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON answers (used);
"""


class SummaryCache:
    """Texts by key, limited in size; the least recently used entries are dropped first.

    Args:
        path: The file; it and its folder are created where they are missing.
        max_bytes: Most bytes of all entries; 0 keeps none, and creates no file.

    Raises:
        UserError: The file is no such cache, or cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.hits = self.misses = 0
        self._connection: sqlite3.Connection | None = None
        if max_bytes > 0:
            with self._errors():
                path.parent.mkdir(parents=True, exist_ok=True)
                # autocommit: transactions begin explicitly
                self._connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.executescript(_SCHEMA)

    @classmethod
    def open(cls, settings: CacheSettings) -> SummaryCache:
        """The cache at the recipe's path; without a path, one in llmctl's own cache folder."""
        path = settings.path or cache_dir() / "msr" / "summaries.sqlite"
        return cls(path, int(settings.megabytes * 2**20))

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The cached texts among the keys; they count as used now."""
        found: dict[str, str] = {}
        with self._transaction() as connection:
            if connection is not None:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    part = keys[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, text FROM answers WHERE key IN ({marks})"
                    found |= dict(connection.execute(query, part).fetchall())
                now = time.time()
                used = [(now, key) for key in found]
                connection.executemany("UPDATE answers SET used = ? WHERE key = ?", used)
        self.hits += len(found)
        self.misses += len(set(keys)) - len(found)
        return found

    def put(self, texts: Mapping[str, str]) -> None:
        """Store texts, all of them or none; an entry that another process stored meanwhile stays."""
        with self._transaction() as connection:
            if connection is None:
                return
            now = time.time()
            rows = [(key, text, _size(text), now) for key, text in texts.items()]
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
            self._shrink(connection)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        with self._transaction() as connection:
            return 0 if connection is None else _total(connection)

    def close(self) -> None:
        """Close the file; calling this twice is harmless."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self.max_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Drop the least recently used entries until there is room again."""
        if (total := _total(connection)) <= self.max_bytes:
            return
        spare, last = total - int(self.max_bytes * _KEPT), None
        for used, size in connection.execute("SELECT used, bytes FROM answers ORDER BY used"):
            spare, last = spare - size, used
            if spare <= 0:
                break
        connection.execute("DELETE FROM answers WHERE used <= ?", (last,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection | None]:
        """Run the block as one transaction; other processes wait."""
        if self._connection is None:
            yield None
            return
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"the cache of summaries {self.path} cannot be used ({error}): remove it, give another "
                "cache.path, or set cache.megabytes=0"
            ) from error


def answer_key(identity: Mapping[str, Any], conversation: Conversation, settings: Settings) -> str:
    """The key of an answer.

    Args:
        identity: The model's fingerprint, its engine, dtype and quantization.
        conversation: The prompt.
        settings: How the answer is sampled.

    Returns:
        64 hexadecimal digits.
    """
    parts = {"identity": identity, "conversation": list(conversation), "settings": asdict(settings)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_content).encode()).hexdigest()


def _content(value: Any) -> Any:
    """A mapping as a dict, a picture by its size and pixels.

    Raises:
        TypeError: The value is neither.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if callable(pixels := getattr(value, "tobytes", None)):
        digest = hashlib.sha256(pixels()).hexdigest()
        return [str(getattr(value, "mode", "")), list(getattr(value, "size", ())), digest]
    raise TypeError(f"a {type(value).__name__} has no content that could be hashed")


def _size(text: str) -> int:
    return len(text.encode(errors="replace")) + _ROW_BYTES


def _total(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COALESCE(SUM(bytes), 0) FROM answers").fetchone()[0])
