"""Everything of one machine's captures that lives on the disk, under one roof: directory, ledger, writer."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gleaner.machine.capture.directory import STATE, SYNC_LOCK_FILE, CaptureDirectory, Waiting, count_tabular
from gleaner.machine.capture.disk import DiskGuard
from gleaner.machine.capture.errors import CaptureDirectoryBusy
from gleaner.machine.capture.ledger import Counts, LedgerStore, collector_row, iso, open_ledger, stored_before
from gleaner.machine.capture.writer import Writer, WriterOptions

PREDECESSOR_PATIENCE_S = 10.0


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

    def __init__(self, root: Path, log: logging.Logger, options: WriterOptions | None = None) -> None:
        self.root = root
        self._options = options or WriterOptions()
        self._log = log
        self._before: dict[str, Waiting] = {}
        self._uncounted: tuple[Path, ...] = ()
        self._oldest_ns: int | None = None
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

    def open(self) -> None:
        """Takes the directory, finishes what a crash left, counts what waits.

        Raises CaptureDirectoryBusy; OSError when the directory cannot be written. Nothing is held then.
        """
        self._directory.open(PREDECESSOR_PATIENCE_S)
        try:
            with _SyncLock(self.root):
                store = open_ledger(self.root, self._log)
                store.finish_leaving()
                survey = self._directory.survey()
                self._before = stored_before(survey.waiting, store.counts())
        except BaseException:
            self._directory.close()
            raise
        self._uncounted, self._oldest_ns = survey.tabular, survey.oldest_ns
        self._store = store
        with self._opening:
            self._writer = Writer(self.root, store, DiskGuard(self.root), self._log, self._options)
            self._writer.start()
            if self._is_abandoned:
                self.close()

    def count_backlog(self) -> None:
        """Counts the records of tabular files from earlier runs: reads them all, so it comes after capture has begun.

        Sync must not begin before it has ended.
        """
        files, self._uncounted = self._uncounted, ()
        for directory, records in count_tabular(self.root, files, self._options.keyring).items():
            self._before[directory].records += records

    def abandon(self) -> None:
        """Closes what another thread has opened, or will have: nobody wants it any more."""
        with self._opening:
            self._is_abandoned = True
            if self._writer is not None:
                self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.stop()
        if self._store is not None:
            self._store.close()
        self._directory.close()

    def note_pass(self, started_ns: int) -> None:
        """Sync has sent all that was there at that time: nothing that still waits is older."""
        self._oldest_ns = started_ns

    def ledger(self, collectors: Mapping[str, CollectorView], sync_error: str) -> dict[str, Any]:
        """The Ledger of docs/architecture.md. `collectors` by directory; others appear for what they left behind."""
        written = self.writer.stored()  # before the counts: what is synced in between was stored before
        counts = self.writer.counts()
        rows, backlog = [], Waiting()
        for directory in sorted(self._before.keys() | written.keys() | collectors.keys() | counts.keys()):
            stored = _sum(self._before.get(directory, Waiting()), written.get(directory, Waiting()))
            count = counts.get(directory, Counts())
            view = collectors.get(directory, CollectorView())
            row = collector_row(directory, stored.records, count)
            rows.append({**row, **asdict(view)})
            backlog.files += max(0, stored.files - count.synced.files - count.set_aside.files)
            backlog.size_bytes += max(0, stored.size_bytes - count.synced.size_bytes - count.set_aside.size_bytes)
        return {
            "collectors": rows,
            "backlog_files": backlog.files,
            "backlog_bytes": backlog.size_bytes,
            "oldest_unsent": iso(self._oldest(backlog)),
            "sync_error": sync_error,
        }

    def _oldest(self, backlog: Waiting) -> int | None:
        if not backlog.files:
            self._oldest_ns = None
        elif self._oldest_ns is None:
            self._oldest_ns = time.time_ns()
        return self._oldest_ns


def _sum(left: Waiting, right: Waiting) -> Waiting:
    return Waiting(left.records + right.records, left.files + right.files, left.size_bytes + right.size_bytes)


class _SyncLock:
    """Held while the backlog is counted: the sync process of a machine that was killed may still be ending."""

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
