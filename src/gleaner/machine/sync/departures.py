"""Lets go of files that the app has, or that it can never have. Blocking; any thread.

A file is removed only after the ledger has counted it (capture/ledger.py).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gleaner.machine.capture.backlog import wait_until_counted, wait_until_noted
from gleaner.machine.capture.directory import hour_of, set_aside_target, write_reason
from gleaner.machine.capture.ledger import (
    Change,
    DropReason,
    Fate,
    Leaving,
    LedgerStore,
    leave,
    leave_unseen,
    merged,
    sync_directories,
)
from gleaner.machine.capture.ledger_rows import files_row
from gleaner.machine.capture.other_files import other_roots
from gleaner.machine.sync.problems import Problems
from gleaner.machine.sync.scan import Candidate
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.sync_frames import EntryKind


class Departure(NamedTuple):
    """A file that leaves, to `target` or for good, and what is counted for it."""

    candidate: Candidate
    target: str
    change: Change | None

    @property
    def leaving(self) -> Leaving:
        one = self.candidate
        return Leaving(one.path, self.target, one.inode, one.size, one.modified_ns)


class Departures:
    def __init__(self, settings: SyncSettings, store: LedgerStore, problems: Problems, log: logging.Logger) -> None:
        self._root = settings.root
        self._below_root = f"{settings.root}/"
        self._other_roots = other_roots(settings.root, settings.additional_sync_paths)
        self._store = store
        self._problems = problems
        self._log = log
        self._may_leave = False
        self._lock = threading.Lock()
        self._gone: list[str] = []
        self._uncounted: list[Change] = []
        self._immovable: set[int] = set()
        """Hashes of the paths of files that the app has and that cannot be removed (read-only disk), or that nobody here can
        open: not tried again and again. (A million paths would be 250 MB.)"""

    def is_kept(self, path: str) -> bool:
        """Whether a file is left alone until the next start."""
        return hash(path) in self._immovable

    def keep(self, path: str) -> None:
        self._immovable.add(hash(path))

    def directory(self, candidate: Candidate) -> str:
        """The collector's, relative to the capture directory; "" for other files."""
        path, start = candidate.path, len(self._below_root)
        return path[start : max(path.rfind("/"), start)] if path.startswith(self._below_root) else ""

    def synced(self, candidate: Candidate, records: int) -> Departure:
        """Of a file that the app has."""
        return Departure(candidate, "", self._change(candidate, Fate.SYNCED, "", records))

    def set_aside(self, candidate: Candidate, why: DropReason, records: int, message: str, hint: str) -> None:
        """Moves a file that can never be sent into `failed/`, with the reason beside it."""
        try:
            target = set_aside_target(self._root, Path(candidate.path))
            write_reason(target, message, hint)
        except OSError as error:
            self._problems.note(f"{candidate.path}: {message} {hint}")
            self._log.warning("%s cannot be sent (%s) and cannot be set aside: %s", candidate.path, message, error)
            self.keep(candidate.path)
            return
        self._problems.note(f"{candidate.path}: {message} {hint} (it is in {target.parent} now)")
        self._log.warning("set %s aside as %s: %s %s", candidate.path, target, message, hint)
        self.let_go([Departure(candidate, str(target), self._change(candidate, Fate.SET_ASIDE, why, records))])

    def _change(self, candidate: Candidate, fate: Fate, reason: str, records: int) -> Change | None:
        directory = self.directory(candidate)
        if not directory:
            root = next((root for root in self._other_roots if candidate.path.startswith(f"{root}/")), "")
            return Change(files_row(root), fate, reason, 1, 1, candidate.size) if root else None
        if candidate.kind is not EntryKind.CAPTURE:
            return None
        hour = hour_of(candidate.path[candidate.path.rfind("/") + 1 :])
        return Change(directory, fate, reason, records, 1, candidate.size, hour)

    def let_go(self, departures: Sequence[Departure]) -> None:
        """Counts them, then removes or moves them. Who calls has just looked that they are what they were."""
        if not departures:
            return
        if not self._may_leave:
            wait_until_noted(self._root, self._store)
            self._may_leave = not self._store.is_counting()
        noted = [(departure.leaving, departure.change) for departure in departures]
        with self._lock:
            try:
                self._store.record(self._uncounted, noted, self._gone)
                self._uncounted, self._gone = [], []
            except sqlite3.OperationalError as error:
                # A full disk: only letting go makes room again. The counts are written with the next files.
                self._uncounted = merged([*self._uncounted, *(change for _, change in noted if change is not None)])
                self._log.debug("the ledger cannot be written now: %s", error)
                wait_until_counted(self._root)  # it could not be told either
            gone: list[str] = []
            for departure, (file, _) in zip(departures, noted, strict=True):
                try:
                    # Captures are named by their time: no other file takes the name. Others may be written anew meanwhile.
                    (leave_unseen if departure.candidate.kind is EntryKind.CAPTURE else leave)(file)
                except OSError as error:
                    self.keep(file.path)
                    self._log.warning("the app has %s but it cannot be removed: %s", file.path, error)
                    continue
                gone.append(file.path)
            sync_directories({path[: path.rfind("/")] for path in gone})
            self._gone += gone
