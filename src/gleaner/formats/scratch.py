"""Room on disk for what does not fit in memory while a data set is read or written; gone when closed."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from gleaner.formats.values import CHUNK_BYTES, Entry

_IN_MEMORY_BYTES = 8 << 20


class Spooled:
    """Bytes that are appended and later read as an entry."""

    def __init__(self) -> None:
        # Closed by `close`, which the writer calls at its end.
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        self.size = 0

    def write(self, text: str) -> None:
        self.size += self._file.write(text.encode("utf-8", "replace"))

    def entry(self, path: str) -> Entry:
        return Entry(path, self.size, self.chunks)

    def chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk
        self._file.seek(0, 2)

    def close(self) -> None:
        self._file.close()


class Notes:
    """Texts by key, several of one key in their order. SQLite's own temporary file: in memory until it grows."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("CREATE TABLE note (key TEXT NOT NULL, at INTEGER PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute("CREATE INDEX by_key ON note (key, at)")
        self._db.execute("BEGIN")

    def add(self, key: str, value: str) -> None:
        self._db.execute("INSERT INTO note (key, value) VALUES (?, ?)", (key, value))

    def of(self, key: str) -> list[str]:
        return [value for (value,) in self._db.execute("SELECT value FROM note WHERE key = ? ORDER BY at", (key,))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
