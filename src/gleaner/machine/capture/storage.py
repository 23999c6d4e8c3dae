"""Everything of one machine's captures that lives on the disk, under one roof: directory, ledger, writer."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gleaner.machine.capture.backlog import Backlog, Count, CountLock
from gleaner.machine.capture.directory import STATE, SYNC_LOCK_FILE, CaptureDirectory, Place, Waiting
from gleaner.machine.capture.disk import DiskGuard
from gleaner.machine.capture.errors import CaptureDirectoryBusy
from gleaner.machine.capture.hours import KEPT_HOURS, hour_rows
from gleaner.machine.capture.ledger import (
    Change,
    Counts,
    DropReason,
    Fate,
    LedgerStore,
    open_ledger,
)
from gleaner.machine.capture.ledger_rows import collector_row, iso, stored_before
from gleaner.machine.capture.other_files import OtherFiles, look, other_roots
from gleaner.machine.capture.progress import Progress
from gleaner.machine.capture.thinner import Thinner, ThinningOptions
from gleaner.machine.capture.writer import Writer, WriterOptions

PREDECESSOR_PATIENCE_S = 10.0
# What is younger is on its way anyhow: the end of a backlog of seconds cannot be told from how it shrinks.
KEEPING_UP_NS = 60_000_000_000


@dataclass(frozen=True)
class CollectorView:
    """What the ledger shows of a configured collector beside its counts."""

    frequency_hz: float = 0.0
    last_error: str = ""
    skipped: int = 0
    vetoed: int = 0
    late_ms: Mapping[str, float] | None = None


class CaptureStorage:
    """`open() → running → close()`, both blocking. `ledger` may be called from any thread and answers at once."""

    def __init__(
        self,
        root: Path,
        log: logging.Logger,
        options: WriterOptions | None = None,
        thinning: ThinningOptions | None = None,
    ) -> None:
        self.root = root
        self._thinning = thinning or ThinningOptions()
        self._thinner: Thinner | None = None
        self._progress = Progress()
        self._options = options or WriterOptions()
        self._log = log
        self._before: dict[str, Waiting] = {}
        """What had left already when this run began."""
        self._found = Backlog()
        """What was still there; it grows while it is counted."""
        self._counting: _Counting | None = None
        self._before_by_hour: dict[tuple[str, int], Waiting] = {}
        self._oldest_ns: int | None = None
        self._has_passed = False
        self._others = OtherFiles()
        self._directory = CaptureDirectory(root, log, self._options.keyring)
        self._store: LedgerStore | None = None
        self._writer: Writer | None = None
        self._opening = threading.Lock()
        self._is_abandoned = False

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("the capture storage is not open")
        return self._writer

    def open(self, will: Sequence[Change] = ()) -> None:
        """Takes the directory; capture, sync and thinning may begin then. `count_backlog` is to follow.

        `will` is added to the ledger first. Raises CaptureDirectoryBusy; OSError when the directory cannot be written.
        Nothing is held then.
        """
        self._directory.open(PREDECESSOR_PATIENCE_S)
        try:
            with _SyncLock(self.root):
                store = open_ledger(self.root, self._log)
                store.finish_leaving()
                store.record(will)
                self._before = stored_before({}, store.counts())
                left = {file.path for file in store.leaving()}  # a read-only disk keeps what is counted as gone
                counting = _Counting(CountLock(self.root), Count(self.root, self._options.keyring, left))
                with contextlib.suppress(sqlite3.OperationalError):  # no room: then files wait for the count
                    store.begin_count(time.time_ns())
                self._before_by_hour = _stored_of(store.hours(0))
                store.forget_hours(_this_hour() - KEPT_HOURS)
        except BaseException:
            self._directory.close()
            raise
        self._oldest_ns, self._has_passed = None, False
        self._store, self._counting, self._found = store, counting, counting.count.found
        with self._opening:
            self._writer = Writer(self.root, store, DiskGuard(self.root), self._log, self._options)
            self._writer.root.created = counting.count.created
            self._writer.start()
            self._thinner = Thinner(self.root, store, self._options.keyring, self._waiting, self._log, self._thinning)
            self._thinner.unwritten = counting.count.note_left
            self._thinner.start()
            if self._is_abandoned:
                self.close()

    def count_backlog(self) -> None:
        """Counts the files of earlier runs and completes what a crash left open. Takes long; nothing waits for it."""
        counting, store = self._counting, self._store
        if counting is None or store is None:
            return
        try:
            counting.count.run(store.left_early, self._log)
        finally:
            with self._opening:
                self._end_counting(counting)

    def _end_counting(self, counting: _Counting | None) -> None:
        if counting is None:
            return
        counting.count.is_stopped.set()
        if self._counting is counting:
            self._counting = None
            if self._writer is not None:
                self._writer.root.created = None
            if self._store is not None:
                with contextlib.suppress(sqlite3.OperationalError):  # no room: notes nobody reads, until the next start
                    self._store.end_count()
        counting.lock.release()

    def abandon(self) -> None:
        """Closes what another thread has opened, or will have: nobody wants it any more."""
        with self._opening:
            self._is_abandoned = True
            if self._writer is not None:
                self.close()

    def is_moved(self) -> bool:
        """Whether somebody removed, moved or unmounted the directory, or put another one in its place."""
        return self._directory.place() is not Place.HERE

    def reopen(self) -> None:
        """Goes on in what is at the directory's path now, with the ledger that is there. Blocking.

        What a removed directory's ledger knew goes on in the new one, and what still waited in it counts as dropped; a
        directory that is only elsewhere keeps its own. Raises as `open`; the storage can be asked and reopened then.
        """
        old_store = self._store
        with self._opening:
            self._end_counting(self._counting)
        is_removed = self._directory.place() is Place.REMOVED
        if self._thinner is not None:
            self._thinner.stop()
        self.writer.stop()
        will = self._last_will() if is_removed else []
        self._directory.close()
        self.open(will)
        if old_store is not None:
            old_store.close()
        self.count_backlog()

    def _last_will(self) -> list[Change]:
        """What the ledger of a removed directory knew, and that the rest of it is lost."""
        changes = []
        counts, stored = self.writer.counts(), self._stored()
        for directory, count in counts.items():
            synced = count.synced
            changes.append(Change(directory, Fate.SYNCED, "", synced.records, synced.files, synced.size_bytes))
            changes += [Change(directory, Fate.DROPPED, reason, n) for reason, n in count.dropped.items()]
        for directory, all_stored in stored.items():
            gone = counts.get(directory, Counts())
            waited = all_stored.records - gone.synced.records - gone.set_aside.records
            if waited > 0:
                changes.append(Change(directory, Fate.DROPPED, DropReason.REMOVED, waited))
        return changes

    def _stored(self) -> dict[str, Waiting]:
        """Everything that was ever written to files, by directory."""
        written, found = self.writer.stored(), dict(self._found.waiting)
        return {
            directory: _sum(
                _sum(self._before.get(directory, Waiting()), found.get(directory, Waiting())),
                written.get(directory, Waiting()),
            )
            for directory in self._before.keys() | found.keys() | written.keys()
        }

    def close(self) -> None:
        self._end_counting(self._counting)
        if self._thinner is not None:
            self._thinner.stop()
        if self._writer is not None:
            self._writer.stop()
        if self._store is not None:
            self._store.close()
        self._directory.close()

    def note_pass(self, started_ns: int) -> None:
        """Sync has sent all that was there at that time: nothing that still waits is older."""
        self._oldest_ns, self._has_passed = started_ns, True

    def note_rate(self, files_per_s: float, bytes_per_s: float) -> None:
        """What sync has got through lately; called every few seconds while it sends."""
        backlog_bytes = None if self._counting is not None else self._waiting().size_bytes
        self._progress.note(files_per_s, bytes_per_s, backlog_bytes, time.monotonic())

    def ledger(self, collectors: Mapping[str, CollectorView], sync_error: str) -> dict[str, Any]:
        """The Ledger of docs/architecture.md. `collectors` by directory; others appear for what they left behind."""
        all_stored = self._stored()  # before the counts: what is synced in between was stored before
        others = self._others
        counts = self.writer.counts()
        all_stored |= others.stored(counts)
        rows = []
        for directory in sorted(all_stored.keys() | collectors.keys() | counts.keys()):
            row = collector_row(
                directory, all_stored.get(directory, Waiting()).records, counts.get(directory, Counts())
            )
            view = collectors.get(directory) or CollectorView(last_error=others.problems.get(directory, ""))
            rows.append({**row, **asdict(view)})
        backlog = _backlog(counts, all_stored)
        oldest_ns = self._oldest(backlog)
        is_behind = oldest_ns is not None and time.time_ns() - oldest_ns > KEEPING_UP_NS
        return {
            "collectors": rows,
            "backlog_files": backlog.files,
            "backlog_bytes": backlog.size_bytes,
            "oldest_unsent": iso(oldest_ns),
            "sync_error": sync_error,
            "rate": {"files_per_s": self._progress.files_per_s, "bytes_per_s": self._progress.bytes_per_s},
            "eta_s": self._progress.eta_s(backlog.size_bytes) if is_behind else None,
            "disk": self._disk(),
            "counting": self._counting is not None,
        }

    @property
    def has_looked_at_files(self) -> bool:
        return bool(self._others.found)

    def look_at_files(self, paths: Sequence[str]) -> None:
        """Looks at the folders of `additional_sync_paths` for the ledger. Blocking. Raises sqlite3.Error."""
        roots, store = other_roots(self.root, paths), self._store
        self._others = look(store, roots) if roots and store is not None else OtherFiles()

    def hours(self, hours: int) -> list[dict[str, Any]]:
        """The ledger of the last hours, this one included; oldest first (see `hours.py`)."""
        since = _this_hour() - max(1, min(hours, KEPT_HOURS)) + 1
        stored = dict(self._before_by_hour)  # before what left: what is synced in between was stored before
        for more in (dict(self._found.by_hour), self.writer.stored_by_hour()):
            for key, files in more.items():
                stored[key] = _sum(stored.get(key, Waiting()), files)
        return hour_rows(stored, self.writer.left_by_hour(since), since)

    def _waiting(self) -> Waiting:
        all_stored = self._stored()
        return _backlog(self.writer.counts(), all_stored)

    def _disk(self) -> dict[str, Any]:
        if self._thinner is None:
            raise RuntimeError("the capture storage is not open")
        space = self._thinner.space
        return {"size_bytes": space.size_bytes, "free_bytes": space.free_bytes, "state": self._thinner.state.value}

    def _oldest(self, backlog: Waiting) -> int | None:
        if not backlog.files:
            self._oldest_ns = None
        elif self._oldest_ns is None:
            self._oldest_ns = time.time_ns()
        earlier_ns = self._found.oldest_ns
        if earlier_ns is None or self._oldest_ns is None or self._has_passed:
            return self._oldest_ns
        return min(earlier_ns, self._oldest_ns)


def _backlog(counts: Mapping[str, Counts], all_stored: Mapping[str, Waiting]) -> Waiting:
    """What waits in all; its records are not counted."""
    backlog = Waiting()
    for directory, stored in all_stored.items():
        left = counts.get(directory, Counts())
        backlog.files += max(0, stored.files - left.synced.files - left.set_aside.files)
        backlog.size_bytes += max(0, stored.size_bytes - left.synced.size_bytes - left.set_aside.size_bytes)
    return backlog


def _this_hour() -> int:
    return int(time.time()) // 3600


def _stored_of(left: Mapping[tuple[str, int], Mapping[tuple[str, str], int]]) -> dict[tuple[str, int], Waiting]:
    """What was stored in each hour, of all that has left."""
    return {
        key: Waiting(sum(records for (fate, _), records in counts.items() if fate != Fate.DROPPED))
        for key, counts in left.items()
    }


def _sum(left: Waiting, right: Waiting) -> Waiting:
    return Waiting(left.records + right.records, left.files + right.files, left.size_bytes + right.size_bytes)


@dataclass(frozen=True)
class _Counting:
    """A count of the backlog that is to come or under way."""

    lock: CountLock
    count: Count


class _SyncLock:
    """Held while the ledger is read: the sync process of a machine that was killed may still be ending."""

    def __init__(self, root: Path) -> None:
        self._path = root / STATE / SYNC_LOCK_FILE
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + PREDECESSOR_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._fd)
                    message = f"a sync process still works on {self._path.parent.parent}: stop it, then start again"
                    raise CaptureDirectoryBusy(message) from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
