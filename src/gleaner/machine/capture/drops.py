"""Counts what was captured and not stored, in memory until the ledger's file takes it: the disk may be full."""

from __future__ import annotations

import logging
import sqlite3
import threading

from gleaner.machine.capture.ledger import Change, DropReason, Fate, LedgerStore


class Drops:
    """Any thread."""

    def __init__(self, store: LedgerStore, log: logging.Logger) -> None:
        self._store = store
        self._log = log
        self._lock = threading.Lock()
        self._records: dict[tuple[str, DropReason], int] = {}

    def add(self, directory: str, reason: DropReason, records: int) -> None:
        key = (directory, reason)
        with self._lock:
            self._records[key] = self._records.get(key, 0) + records

    def unsaved(self) -> dict[tuple[str, DropReason], int]:
        with self._lock:
            return dict(self._records)

    def save(self) -> None:
        drops = self.unsaved()
        if not drops:
            return
        changes = [Change(d, Fate.DROPPED, reason, records) for (d, reason), records in drops.items()]
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
