"""The capture ledger: for every collector, captured = synced + waiting + dropped, exactly, also after a kill -9.

What is durable: the capture files themselves, and `<capture_dir>/.gleaner/ledger.db` (SQLite) with cumulative counts of
what left the directory (`synced`, `set_aside`) or never reached it (`dropped`). `waiting` is never stored: it is what
the files say. Who removes a file counts it and notes it as *leaving* in one transaction, and then removes it: a kill in
between is finished at the next start, so no file is ever counted twice or forgotten. Two remove files, sync and the
thinning of a full disk: whoever notes a file first has counted it. What was thinned stays noted until the next round, so
that a file which the app had already, but not yet acknowledged, is counted as synced after all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from gleaner.machine.capture.directory import STATE, UNKNOWN_HOUR, Waiting

LEDGER_FILE = "ledger.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS counts (
  directory TEXT NOT NULL, fate TEXT NOT NULL, reason TEXT NOT NULL,
  records INTEGER NOT NULL, files INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  PRIMARY KEY (directory, fate, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaving (
  path TEXT PRIMARY KEY, target TEXT NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
  thinned INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
_HOURS_SCHEMA = """
CREATE TABLE IF NOT EXISTS hours (
  directory TEXT NOT NULL, hour INTEGER NOT NULL, fate TEXT NOT NULL, reason TEXT NOT NULL, records INTEGER NOT NULL,
  PRIMARY KEY (hour, directory, fate, reason)) WITHOUT ROWID;
"""
_COUNTING_SCHEMA = """
CREATE TABLE IF NOT EXISTS counting (since_ns INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS left_early (
  path TEXT PRIMARY KEY, directory TEXT NOT NULL, hour INTEGER NOT NULL, records INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL) WITHOUT ROWID;
"""
_LEFT_EARLY = "SELECT * FROM left_early WHERE directory = ? AND path > ? ORDER BY path LIMIT 1000"
_COUNT_HOUR = "INSERT INTO hours VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET records = records + excluded.records"
_ADD_THINNED = "ALTER TABLE leaving ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0"
_COUNT = (
    "INSERT INTO counts VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET records = records + excluded.records,"
    " files = files + excluded.files, size_bytes = size_bytes + excluded.size_bytes"
)
# A row of another file, which had the same name, gives way. The same file again changes nothing: it was counted.
_NOTE = (
    "INSERT INTO leaving VALUES (?,?,?,?,?,?) ON CONFLICT (path) DO UPDATE SET target = excluded.target,"
    " inode = excluded.inode, size = excluded.size, modified_ns = excluded.modified_ns, thinned = excluded.thinned"
    " WHERE inode <> excluded.inode OR size <> excluded.size OR modified_ns <> excluded.modified_ns"
)
_RECLAIM = (
    "UPDATE leaving SET thinned = 0 WHERE path = ? AND inode = ? AND size = ? AND modified_ns = ? AND thinned = 1"
)


class Fate(StrEnum):
    SYNCED = "synced"
    SET_ASIDE = "set_aside"
    """Was stored, can never be sent: shown as dropped, kept in `failed/`."""
    DROPPED = "dropped"
    """Was captured, never stored."""


class DropReason(StrEnum):
    QUEUE_FULL = "queue_full"
    DISK_FULL = "disk_full"
    NO_INODES = "no_inodes"
    QUOTA = "quota"
    READ_ONLY = "read_only"
    IO_ERROR = "io_error"
    TOO_MANY_FILES = "too_many_files"
    NO_PERMISSION = "no_permission"
    REMOVED = "removed"
    """Was written, then taken away by somebody else before its file was complete."""
    WRITE_FAILED = "write_failed"
    """Any other error."""
    THINNED = "thinned"
    """Was stored, then removed because the disk was full."""
    REJECTED = "rejected"
    DAMAGED = "damaged"


class Change(NamedTuple):
    """An addition to the counts of one collector directory."""

    directory: str
    fate: Fate
    reason: str = ""
    records: int = 0
    files: int = 0
    size_bytes: int = 0
    hour: int = UNKNOWN_HOUR
    """Of the file's name, or when it was dropped; an unknown one is in the totals only."""


class Leaving(NamedTuple):
    """A file about to be removed (`target` empty) or moved. Its identity guards against a new file of that name."""

    path: str
    target: str
    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True)
class LeftEarly:
    """A file that left while the files of earlier runs were counted: the count may have missed it."""

    path: str
    directory: str
    hour: int
    records: int
    size_bytes: int

    @classmethod
    def of(cls, file: Leaving, change: Change) -> LeftEarly:
        return cls(file.path, change.directory, change.hour, change.records, change.size_bytes)


Departure = tuple[Leaving, Change | None]
"""A file that leaves, and what is counted for it."""


def merged(changes: Iterable[Change]) -> list[Change]:
    """The same counts in as few rows as possible: a batch of 200 pictures is one row."""
    sums: dict[tuple[str, Fate, str, int], tuple[int, int, int]] = {}
    for change in changes:
        key = (change.directory, change.fate, change.reason, change.hour)
        records, files, size_bytes = sums.get(key, (0, 0, 0))
        sums[key] = (records + change.records, files + change.files, size_bytes + change.size_bytes)
    return [Change(*key[:3], r, f, b, key[3]) for key, (r, f, b) in sums.items()]


def _synced_after_all(change: Change) -> list[Change]:
    """Instead of thinned."""
    thinned = change._replace(
        fate=Fate.SET_ASIDE,
        reason=DropReason.THINNED,
        records=-change.records,
        files=-change.files,
        size_bytes=-change.size_bytes,
    )
    return [change, thinned]


@dataclass
class Counts:
    synced: Waiting = field(default_factory=Waiting)
    set_aside: Waiting = field(default_factory=Waiting)
    dropped: dict[str, int] = field(default_factory=dict)
    """Records by reason, of both fates."""
    never_stored: int = 0


class LedgerStore:
    """The database. Any thread; each call is one transaction. `durable`: each survives a power cut, at the cost of an fsync;
    else the file stays whole, and may lack the last ones."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        path = root / STATE / LEDGER_FILE
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._db.executescript(_SCHEMA + _HOURS_SCHEMA + _COUNTING_SCHEMA)
            if "thinned" not in [row[1] for row in self._db.execute("PRAGMA table_info(leaving)")]:
                self._db.execute(_ADD_THINNED)
            self._db.execute("SELECT count(*) FROM counts")
        except sqlite3.Error:
            self._db.close()
            raise

        # Its own connection: readers never wait, neither for this process's writes nor for the other one's.
        self._read_lock = threading.Lock()
        self._reader = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)

    def check(self) -> None:
        """Reads all of it; some milliseconds. Raises sqlite3.DatabaseError for what is damaged."""
        with self._lock:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        try:
            self.counts(), self.leaving(), self.hours(0)
        except (ValueError, TypeError) as error:  # a flipped bit that SQLite does not see
            raise sqlite3.DatabaseError(f"it holds what was never written: {error}") from error

    def close(self) -> None:
        with self._lock, self._read_lock:
            self._reader.close()
            self._db.close()

    def record(
        self,
        changes: Iterable[Change],
        departures: Iterable[Departure] = (),
        gone: Iterable[str] = (),
        *,
        thinned: bool = False,
    ) -> None:
        """Adds counts, counts and notes the files that leave and forgets those that are gone, all or nothing."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            changes = list(changes)
            is_counting = self._is_counting()
            for file, change in departures:
                key = (file.path, file.inode, file.size, file.modified_ns)
                if self._db.execute(_NOTE, (*file, thinned)).rowcount and change is not None:
                    changes.append(change)
                    if is_counting:
                        early = LeftEarly.of(file, change)
                        self._db.execute("INSERT OR REPLACE INTO left_early VALUES (?,?,?,?,?)", astuple(early))
                elif change is not None and not thinned and self._db.execute(_RECLAIM, key).rowcount:
                    changes += _synced_after_all(change)
            self._count(changes)
            self._db.executemany("DELETE FROM leaving WHERE path = ?", [(path,) for path in gone])

    def reclaim(self, departures: Iterable[Departure]) -> None:
        """The app has these files, which were no longer here: if thinning took them, they are counted as synced."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for file, change in departures:
                key = (file.path, file.inode, file.size, file.modified_ns)
                if change is not None and self._db.execute(_RECLAIM, key).rowcount:
                    self._count(_synced_after_all(change))

    # --- while the files of earlier runs are counted (backlog.py) ------------------------------------------------------

    def begin_count(self, now_ns: int) -> None:
        """From now on each file that leaves is noted, so that a count need not hold it up. Raises OperationalError."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM left_early")
            self._db.execute("INSERT OR REPLACE INTO counting VALUES (?)", (now_ns,))

    def left_early(self, directory: str) -> Iterator[LeftEarly]:
        """Lazily, in the order of paths: while a count takes minutes, sync sends hundreds of thousands."""
        after = ""
        while True:
            with self._read_lock:
                rows = self._reader.execute(_LEFT_EARLY, (directory, after)).fetchall()
            if not rows:
                return
            for row in rows:
                yield LeftEarly(*row)
            after = rows[-1][0]

    def end_count(self) -> None:
        """Files that leave are no longer noted. Raises OperationalError: then they go on being, until the next start."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM counting")
            self._db.execute("DELETE FROM left_early")

    def is_counting(self) -> bool:
        """Whether files that leave are noted for a count."""
        with self._lock:
            return self._is_counting()

    def _is_counting(self) -> bool:
        return self._db.execute("SELECT 1 FROM counting").fetchone() is not None

    def _count(self, changes: Iterable[Change]) -> None:
        sums = merged(changes)
        self._db.executemany(_COUNT, [(c.directory, c.fate, c.reason, c.records, c.files, c.size_bytes) for c in sums])
        self._db.executemany(
            _COUNT_HOUR, [(c.directory, c.hour, c.fate, c.reason, c.records) for c in sums if c.hour != UNKNOWN_HOUR]
        )

    def hours(self, since: int) -> dict[tuple[str, int], dict[tuple[str, str], int]]:
        """Records by (fate, reason), of every directory and hour from `since` on."""
        with self._read_lock:
            rows = self._reader.execute(
                "SELECT directory, hour, fate, reason, records FROM hours WHERE hour >= ?", (since,)
            )
            found: dict[tuple[str, int], dict[tuple[str, str], int]] = {}
            for directory, hour, fate, reason, records in rows:
                found.setdefault((directory, hour), {})[fate, reason] = records
        return found

    def forget_hours(self, before: int) -> None:
        """Their records stay in the totals."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM hours WHERE hour < ?", (before,))

    def leaving(self) -> list[Leaving]:
        with self._read_lock:
            rows = self._reader.execute("SELECT path, target, inode, size, modified_ns FROM leaving").fetchall()
        return [Leaving(*row) for row in rows]

    def thinned(self) -> list[str]:
        """Paths of the files that the last round of thinning took."""
        with self._read_lock:
            return [path for (path,) in self._reader.execute("SELECT path FROM leaving WHERE thinned = 1")]

    def counts(self) -> dict[str, Counts]:
        with self._read_lock:
            rows = self._reader.execute("SELECT * FROM counts").fetchall()
        found: dict[str, Counts] = {}
        for directory, fate, reason, records, files, size_bytes in rows:
            counts = found.setdefault(directory, Counts())
            if fate == Fate.SYNCED:
                counts.synced = Waiting(records, files, size_bytes)
                continue
            counts.dropped[reason] = counts.dropped.get(reason, 0) + records
            if fate == Fate.SET_ASIDE:
                aside = counts.set_aside
                aside.records, aside.files = aside.records + records, aside.files + files
                aside.size_bytes += size_bytes
            else:
                counts.never_stored += records
        return found

    def finish_leaving(self) -> None:
        """Removes or moves the files that were counted before a kill. Call while nobody else syncs."""
        gone = []
        for file in self.leaving():
            with contextlib.suppress(OSError):  # a read-only disk: tried again at the next start
                leave(file)
                gone.append(file.path)
        sync_directories({str(Path(path).parent) for path in gone})
        self.record((), gone=gone)


def open_ledger(root: Path, log: logging.Logger) -> LedgerStore:
    """The ledger of a directory that the caller owns. One that is damaged is put aside: capture must go on."""
    path = root / STATE / LEDGER_FILE
    try:
        store = LedgerStore(root, durable=False)
        try:
            store.check()
        except BaseException:
            store.close()
            raise
        return store
    except sqlite3.OperationalError:
        raise  # locked, read-only, no space: not the file's fault
    except sqlite3.DatabaseError as error:
        aside = path.with_name(LEDGER_FILE + ".damaged")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(LEDGER_FILE + suffix).unlink(missing_ok=True)
        log.error("the capture ledger was damaged (%s): it begins anew, the old one is %s", error, aside)
        return LedgerStore(root, durable=False)


def leave(file: Leaving) -> None:
    """Removes or moves a file that was counted; does nothing if it is gone or another file took its name."""
    if is_same_file(file):
        leave_unseen(file)


def leave_unseen(file: Leaving) -> None:
    """The same without a look, for who has just looked and for names that nobody gives twice."""
    # os and text: Path objects take as long as the disk does, and a backlog has many files.
    try:
        if file.target:
            os.rename(file.path, file.target)  # noqa: PTH104
        else:
            os.unlink(file.path)  # noqa: PTH108
    except FileNotFoundError:
        pass


def is_same_file(file: Leaving) -> bool:
    """Whether the file is still there, and still the one that was counted."""
    try:
        status = os.stat(file.path)  # noqa: PTH116
    except FileNotFoundError:
        return False
    return (status.st_ino, status.st_size, status.st_mtime_ns) == (file.inode, file.size, file.modified_ns)


def sync_directories(paths: Iterable[str]) -> None:
    """Makes removals durable: only then may the ledger forget that the files were leaving."""
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
