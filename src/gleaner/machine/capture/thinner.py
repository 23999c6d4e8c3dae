"""Keeps captures from filling the disk: looks every few seconds, and deletes what `thinning.py` chooses.

A thread of its own; what it costs is paid when the disk is full only. A round walks the capture directory once (about
six seconds for a million files) and frees enough for many captures to come. Every file is counted as dropped (`thinned`)
before it is removed, in the same transaction that notes it as leaving (`ledger.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gleaner.machine.capture.at_rest import Keyring, is_encrypted, open_sealed
from gleaner.machine.capture.directory import count_records, hour_of, is_binary_path, walk_files
from gleaner.machine.capture.disk import DiskSpace, Marks, bytes_to_free, is_full, space_at
from gleaner.machine.capture.errors import CaptureKeyMissing
from gleaner.machine.capture.ledger import Change, Departure, DropReason, Fate, Leaving, LedgerStore, leave
from gleaner.wire.capture_file import COMPLETE_SUFFIX, CaptureFileError, has_tags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gleaner.machine.capture.thinning import Series

LOOK_S = 2.0
REST_LOOKS = 15
BATCH_FILES = 256
_HEADER_PEEK = 4096
_BLOCK_BYTES = 512


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


@dataclass
class _Found:
    """The complete files of one directory, in the order in which they were found."""

    names: list[bytes]
    stats: list[tuple[int, int, int, int]]
    """(modified_ns, size, bytes on the disk, inode)."""


class Thinner:
    """`start() → running → stop()`. `captures_bytes` is what the ledger says is waiting: cheap, asked at every look."""

    def __init__(
        self,
        root: Path,
        store: LedgerStore,
        keyring: Keyring,
        captures_bytes: Callable[[], int],
        log: logging.Logger,
        options: ThinningOptions | None = None,
    ) -> None:
        self._root = root
        self._store = store
        self._keyring = keyring
        self._captures_bytes = captures_bytes
        self._log = log
        self._options = options or ThinningOptions()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._uncounted: list[Change] = []
        self._thinned_files = 0
        self._fruitless_looks = 0
        self.state = DiskState.OK
        self.space = DiskSpace(0, 0)

    def start(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="capture-thinner")
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except (OSError, sqlite3.Error) as error:  # the folder is gone, the ledger busy: the next look comes
                self._log.debug("the disk could not be looked at: %s", error)
            self._stopping.wait(self._options.look_s)

    def look(self) -> int:
        """One look, and a round of thinning if the disk asks for it; returns how many files went."""
        self.space = space = self._options.space(self._root)
        need = bytes_to_free(space, self._captures_bytes(), self._options.marks)
        if not need:
            self._note(DiskState.FULL if is_full(space, was_full=False) else DiskState.OK)
            return 0
        if self._fruitless_looks:  # only the newest files are left: the folder is not walked in vain every time
            self._fruitless_looks -= 1
            return 0
        if self.state is DiskState.OK:
            self._note(DiskState.THINNING)
        files = self._thin(need)
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

    def _thin(self, need_bytes: int) -> int:
        from gleaner.machine.capture.thinning import choose

        # What the last round took can no longer be on its way to the app. No room even for that: making some comes first.
        with contextlib.suppress(sqlite3.OperationalError):
            self._store.record([], gone=self._store.thinned())
        found = self._walk()
        series, orders = [], []
        for directory, files in found.items():
            one, order = self._series(directory, files)
            series.append(one)
            orders.append(order)
        total = 0
        for one, order, mask in zip(series, orders, choose(series, need_bytes), strict=True):
            files = found.pop(one.directory)
            total += self._delete(one.directory, files, order[mask])
        self._thinned_files += total
        return total

    def _walk(self) -> dict[str, _Found]:
        found: dict[str, _Found] = {}
        prefix = len(str(self._root)) + 1
        for entry in walk_files(self._root):
            if not entry.name.endswith(COMPLETE_SUFFIX):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            directory = entry.path[prefix : -len(entry.name) - 1]
            files = found.setdefault(directory, _Found([], []))
            files.names.append(os.fsencode(entry.name))
            files.stats.append((status.st_mtime_ns, status.st_size, status.st_blocks * _BLOCK_BYTES, status.st_ino))
        return found

    def _series(self, directory: str, files: _Found) -> tuple[Series, NDArray[np.intp]]:
        """The files by time, and at which place each was found."""
        import numpy as np

        from gleaner.machine.capture.thinning import Series

        table = np.array(files.stats, np.int64).reshape(-1, 4)
        # A file system's clock ticks every few milliseconds: within one, the names tell.
        order = np.lexsort((np.array(files.names), table[:, 0]))
        tagged = np.fromiter(self._tagged(directory, files), np.bool_, len(files.names))
        sizes = np.maximum(table[:, 1], table[:, 2])
        return Series(directory, table[order, 0], sizes[order], tagged[order]), order

    def _tagged(self, directory: str, files: _Found) -> Iterator[bool]:
        """By each file's own header: tags may change with the configuration. What cannot be read counts as tagged."""
        known: dict[bytes, bool] = {}
        folder = os.fsencode(self._root / directory)
        for name in files.names:
            try:
                handle = os.open(folder + b"/" + name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    head = os.read(handle, _HEADER_PEEK)
                finally:
                    os.close(handle)
                if is_encrypted(head):
                    head = open_sealed(head, self._keyring).plain
                # Files of one collector begin alike: header length, header.
                start = head[: 1 + head[0]] if head and head[0] < 128 else head
                answer = known.get(start)
                if answer is None:
                    answer = known[start] = has_tags(head)
                yield answer
            except (OSError, CaptureFileError, CaptureKeyMissing):
                yield True

    def _delete(self, directory: str, files: _Found, places: NDArray[np.intp]) -> int:
        deleted = 0
        for start in range(0, len(places), BATCH_FILES):
            if self._stopping.is_set():
                break
            batch = [self._departure(directory, files, int(place)) for place in places[start : start + BATCH_FILES]]
            try:
                self._store.record(self._uncounted, batch, thinned=True)
                self._uncounted = []
            except sqlite3.OperationalError as error:
                # No room even for the ledger. Making some comes first; the counts follow with the next batch.
                self._uncounted += [change for _, change in batch if change is not None]
                self._log.debug("the ledger cannot be written now: %s", error)
            for file, _ in batch:
                try:
                    leave(file)
                except OSError as error:
                    self._log.debug("%s cannot be removed: %s", file.path, error)
                    continue
                deleted += 1
        return deleted

    def _departure(self, directory: str, files: _Found, place: int) -> Departure:
        path = f"{self._root}/{directory}/{os.fsdecode(files.names[place])}"
        modified_ns, size, _, inode = files.stats[place]
        records = 1 if is_binary_path(directory) else count_records(Path(path), self._keyring)
        hour = hour_of(os.fsdecode(files.names[place]))
        change = Change(directory, Fate.SET_ASIDE, DropReason.THINNED, records, 1, size, hour)
        return Leaving(path, "", inode, size, modified_ns), change
