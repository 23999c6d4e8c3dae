"""Keeps captures from filling the disk: looks every few seconds, and deletes what `thinning.py` chooses.

A thread of its own; what it costs is paid when the disk is full only. A round goes through the capture directory once
(`inventory.py`) and frees enough for many captures to come. Every file is counted as dropped (`thinned`)
before it is removed, in the same transaction that notes it as leaving (`ledger.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.directory import Waiting, count_records, hour_of, is_binary_path
from gleaner.machine.capture.disk import DiskSpace, Marks, bytes_to_free, files_to_free, is_full, space_at
from gleaner.machine.capture.inventory import Tags, complete_names, directories, take_inventory
from gleaner.machine.capture.ledger import Change, Departure, DropReason, Fate, Leaving, LedgerStore, LeftEarly, leave
from gleaner.machine.capture.listing import Pace

LOOK_S = 2.0
REST_LOOKS = 15
BATCH_FILES = 256
_BLOCK_BYTES = 4096
# A round over a million files computes for half a minute, in the process that captures.
WORK_S = 0.004
REST_S = 0.002


class DiskState(StrEnum):
    OK = "ok"
    THINNING = "thinning"
    """Old captures go, so that new ones can come."""
    FULL = "full"
    """Nothing is left to go, or it goes too slowly: new captures are dropped."""


@dataclass(frozen=True)
class ThinningOptions:
    marks: Marks = field(default_factory=Marks)
    space: Callable[[Path], DiskSpace] = space_at
    look_s: float = LOOK_S


class _Stopped(Exception):
    """The machine stops in the middle of a round."""


class Thinner:
    """`start() → running → stop()`. `captures` is what the ledger says is waiting: cheap, asked at every look."""

    def __init__(
        self,
        root: Path,
        store: LedgerStore,
        keyring: Keyring,
        captures: Callable[[], Waiting],
        log: logging.Logger,
        options: ThinningOptions | None = None,
    ) -> None:
        self._root = root
        self._store = store
        self._keyring = keyring
        self._captures = captures
        self._log = log
        self._options = options or ThinningOptions()
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._uncounted: list[Change] = []
        self._thinned_files = 0
        self._spared_files = 0
        """Of the last round: they turned out to be tagged."""
        self._fruitless_looks = 0
        self.state = DiskState.OK
        self.space = DiskSpace(0, 0)
        self.unwritten: Callable[[Iterable[LeftEarly]], None] = lambda _files: None
        """Is told what goes while the ledger's file cannot take it: a count may be under way (`backlog.py`)."""

    def start(self) -> None:
        with self._guard:
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._run, name="capture-thinner")
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        self._stopping.set()
        with self._guard:  # a count of the backlog that ends at this moment may be about to start it
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except _Stopped:
                return
            except (OSError, sqlite3.Error) as error:  # the folder is gone, the ledger busy: the next look comes
                self._log.debug("the disk could not be looked at: %s", error)
            self._stopping.wait(self._options.look_s)

    def look(self) -> int:
        """One look, and a round of thinning if the disk asks for it; returns how many files went."""
        self.space = space = self._options.space(self._root)
        captures = self._captures()
        need = bytes_to_free(space, captures.size_bytes, self._options.marks)
        need_files = 0 if need else files_to_free(space, captures.files)
        if not need and not need_files:
            self._note(DiskState.FULL if is_full(space, was_full=False) else DiskState.OK)
            return 0
        if self._fruitless_looks:  # only the newest files are left: the folder is not walked in vain every time
            self._fruitless_looks -= 1
            return 0
        if self.state is DiskState.OK:
            self._note(DiskState.THINNING)
        files = self._thin(need_files, by_files=True) if need_files else self._thin(need, by_files=False)
        self._fruitless_looks = 0 if files else REST_LOOKS
        self.space = space = self._options.space(self._root)
        self._note(DiskState.FULL if is_full(space, was_full=False) else DiskState.THINNING)
        return files

    def _note(self, state: DiskState) -> None:
        if state is self.state:
            return
        self.state = state
        match state:
            case DiskState.THINNING:
                self._log.warning(
                    "the disk of %s is filling up: captures are thinned evenly in time, tagged ones and rare sensors last; "
                    "free some space, or let sync catch up",
                    self._root,
                )
            case DiskState.FULL:
                self._log.error("the disk of %s is full of other things than captures: free some space", self._root)
            case DiskState.OK:
                self._log.info(
                    "the disk of %s has space again; %d files were thinned since the start",
                    self._root,
                    self._thinned_files,
                )

    # --- one round ---------------------------------------------------------------------------------------------------

    def _thin(self, need: int, *, by_files: bool) -> int:
        """`need`: bytes, or files."""
        # What the last round took can no longer be on its way to the app. No room even for that: making some comes first.
        with contextlib.suppress(sqlite3.OperationalError):
            self._store.record([], gone=self._store.thinned())
        total, freed = self._thin_once(need, exact=False, by_files=by_files)
        missing = need - (total if by_files else freed)
        if missing > 0 and self._spared_files:
            # Tagged files lie among untagged ones, more finely than they were looked for.
            total += self._thin_once(missing, exact=True, by_files=by_files)[0]
        self._thinned_files += total
        return total

    def _thin_once(self, need: int, *, exact: bool, by_files: bool) -> tuple[int, int]:
        """(files, bytes) that went."""
        from gleaner.machine.capture.thinning import choose

        self._spared_files = 0
        tags, pace = Tags(self._keyring), Pace(WORK_S, REST_S, self._stopping)

        def pause() -> None:
            if self._stopping.is_set():
                raise _Stopped
            pace.step()

        stock = []
        for directory in directories(self._root):
            found = take_inventory(self._root, directory, tags, pause, exact=exact)
            if found.keys:
                stock.append(found.series())
        series = [one.counted_singly() if by_files else one for one, _ in stock]
        files = freed = 0
        for (one, keys), mask in zip(stock, choose(series, need), strict=True):
            tagged = set(keys[mask & one.tagged].tolist())
            untagged = set(keys[mask & ~one.tagged].tolist())
            if tagged or untagged:
                more_files, more_bytes = self._delete(one.directory, untagged, tagged, tags, pause)
                files, freed = files + more_files, freed + more_bytes
        return files, freed

    def _delete(
        self, directory: str, untagged: set[int], tagged: set[int], tags: Tags, pause: Callable[[], None]
    ) -> tuple[int, int]:
        """(files, bytes) that went of those with these keys; `untagged` ones only if they are."""
        folder = f"{self._root}/{directory}".rstrip("/")
        files = freed = 0
        batch: list[Departure] = []
        with contextlib.suppress(OSError):  # removed while we looked
            for name in complete_names(folder, pause):
                key, path = hash(name), f"{folder}/{name}"
                if key not in tagged:
                    if key not in untagged:
                        continue
                    if tags.of(path):
                        self._spared_files += 1
                        continue
                with contextlib.suppress(FileNotFoundError):  # sync took it
                    batch.append(self._departure(directory, name, path))
                if len(batch) == BATCH_FILES:
                    files, freed, batch = files + self._let_go(batch), freed + _size(batch), []
        return files + self._let_go(batch), freed + _size(batch)

    def _let_go(self, batch: list[Departure]) -> int:
        """Counts and removes; returns how many are gone."""
        if not batch:
            return 0
        try:
            self._store.record(self._uncounted, batch, thinned=True)
            self._uncounted = []
        except sqlite3.OperationalError as error:
            # No room even for the ledger. Making some comes first; the counts follow with the next batch.
            self._uncounted += [change for _, change in batch if change is not None]
            self.unwritten([LeftEarly.of(file, change) for file, change in batch if change is not None])
            self._log.debug("the ledger cannot be written now: %s", error)
        deleted = 0
        for file, _ in batch:
            try:
                leave(file)
            except OSError as error:
                self._log.debug("%s cannot be removed: %s", file.path, error)
                continue
            deleted += 1
        return deleted

    def _departure(self, directory: str, name: str, path: str) -> Departure:
        """Raises FileNotFoundError."""
        status = os.lstat(path)
        records = 1 if is_binary_path(directory) else count_records(Path(path), self._keyring)
        change = Change(directory, Fate.SET_ASIDE, DropReason.THINNED, records, 1, status.st_size, hour_of(name))
        return Leaving(path, "", status.st_ino, status.st_size, status.st_mtime_ns), change


def _size(batch: list[Departure]) -> int:
    """What the files take on the disk, at least."""
    return sum(max(file.size, _BLOCK_BYTES) for file, _ in batch)
