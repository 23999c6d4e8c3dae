"""Counts what was captured and not stored, in memory until the ledger's file takes it: the disk may be full."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

from gleaner.machine.capture.ledger import Change, Counts, DropReason, Fate, LedgerStore

READ_PATIENCE_S = 0.05


class Drops:
    """Any thread."""

    def __init__(self, store: LedgerStore, log: logging.Logger) -> None:
        self._store = store
        self._log = log
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._records: dict[tuple[str, DropReason, int], int] = {}
        """By directory, reason and hour."""

    def add(self, directory: str, reason: DropReason, records: int) -> None:
        key = (directory, reason, int(time.time()) // 3600)
        with self._lock:
            self._records[key] = self._records.get(key, 0) + records

    def counts(self) -> dict[str, Counts]:
        """The ledger's counts together with what is not in its file yet, each drop once."""
        # A save that takes long (the other process writes) must not hold up who asks: nothing is counted twice unless it
        # ends in just this moment.
        is_alone = self._saving.acquire(timeout=READ_PATIENCE_S)
        try:
            counts = self._store.counts()
            with self._lock:
                records = dict(self._records)
        finally:
            if is_alone:
                self._saving.release()
        for (directory, reason, _), number in records.items():
            own = counts.setdefault(directory, Counts())
            own.dropped[reason] = own.dropped.get(reason, 0) + number
            own.never_stored += number
        return counts

    def hours(self, since: int) -> dict[tuple[str, int], dict[tuple[str, str], int]]:
        """The ledger's hours together with what is not in its file yet."""
        is_alone = self._saving.acquire(timeout=READ_PATIENCE_S)
        try:
            found = self._store.hours(since)
            with self._lock:
                records = dict(self._records)
        finally:
            if is_alone:
                self._saving.release()
        for (directory, reason, hour), number in records.items():
            counts = found.setdefault((directory, hour), {})
            counts[Fate.DROPPED, reason] = counts.get((Fate.DROPPED, reason), 0) + number
        return found

    def save(self) -> None:
        with self._saving:
            self._save()

    def _save(self) -> None:
        with self._lock:
            drops = dict(self._records)
        if not drops:
            return
        changes = [Change(d, Fate.DROPPED, reason, n, hour=hour) for (d, reason, hour), n in drops.items()]
        try:
            self._store.record(changes)
        except sqlite3.Error as error:
            self._log.debug("the ledger cannot be written, drops stay in memory: %s", error)
            return
        with self._lock:
            for key, records in drops.items():
                left = self._records[key] - records
                if left:
                    self._records[key] = left
                else:
                    del self._records[key]
