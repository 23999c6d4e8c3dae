"""Counts the captures of earlier runs, while this run's captures, sync and thinning go on already.

Files may leave before the count has come to them. Who lets one go notes it, in the transaction that counts it as gone
(`LedgerStore.record`), until the count has ended; the count then adds those that it did not see itself. It knows what it
saw by eight bytes a file of the folder that it is in: what leaves after a folder has been gone through was seen. What this
run's writer makes is left out by name: the writer notes each name before the file appears. So the files counted are exactly
those of earlier runs. Files and bytes are counted first, for they tell when sync will be through and what thinning may take;
the records of files of readings, which have to be read, follow.

What a crash left open (`.prog`) is completed here as well, last: looking for it among a million names takes seconds, and
capture must not wait for that.

Where the ledger cannot note (a disk without any room), files wait for the count: the machine holds the *count lock* until
it has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.directory import (
    SKIPPED_DIRECTORIES,
    STATE,
    Waiting,
    count_records,
    finish_orphans,
    hour_of,
    is_binary_path,
)
from gleaner.machine.capture.ledger import LedgerStore, LeftEarly
from gleaner.machine.capture.listing import Pace, oldest_first
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX

COUNT_LOCK_FILE = "count.lock"
# Nobody waits for the count, but drivers and requests share its interpreter: it computes for a moment and rests for one.
WORK_S = 0.004
REST_S = 0.004


class CountLock:
    """Held from before the first capture until the backlog has been counted. The kernel frees it when we are killed."""

    def __init__(self, root: Path) -> None:
        """Takes it. Nobody else can hold it for long: the caller owns the directory, and no sync process lives."""
        self._fd = os.open(root / STATE / COUNT_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(self._fd)
            raise

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def wait_until_counted(root: Path) -> None:
    """Returns once the count has ended. Blocking."""
    with contextlib.suppress(FileNotFoundError):  # somebody removed the directory: there is nothing to count
        fd = os.open(root / STATE / COUNT_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def wait_until_noted(root: Path, store: LedgerStore) -> None:
    """Returns once files may leave: their leaving is noted, or nothing is counted any more. Blocking."""
    if not store.is_counting():
        wait_until_counted(root)


@dataclass
class Backlog:
    """Complete files of earlier runs, by directory."""

    waiting: dict[str, Waiting] = field(default_factory=dict)
    by_hour: dict[tuple[str, int], Waiting] = field(default_factory=dict)
    """Records only, by directory and hour of the name."""
    oldest_ns: int | None = None

    def add(self, directory: str, hour: int, records: int, size_bytes: int) -> None:
        here = self.waiting.get(directory)
        if here is None:
            here = self.waiting[directory] = Waiting()
        here.files += 1
        here.size_bytes += size_bytes
        self.add_records(directory, hour, records)

    def add_records(self, directory: str, hour: int, records: int) -> None:
        self.waiting.setdefault(directory, Waiting()).records += records
        key = (directory, hour)
        hours = self.by_hour.get(key)
        if hours is None:
            hours = self.by_hour[key] = Waiting()
        hours.records += records


EarlyIn = Callable[[str], Iterable[LeftEarly]]
"""What has left a directory so far."""


class Count:
    """A count that is to come or under way. `found` may be read meanwhile: it grows."""

    def __init__(self, root: Path, keyring: Keyring | None = None, ignored: Container[str] = ()) -> None:
        """`ignored`: paths of files that the ledger has counted as gone, and that could not be removed yet."""
        self.found = Backlog()
        self.created: set[str] = set()
        """Files of this run, without suffixes; see `files.Root`."""
        self.is_stopped = threading.Event()
        self._root = str(root)
        self._keyring = keyring or Keyring()
        self._ignored = ignored
        self._orphans: list[str] = []
        self._unwritten: list[LeftEarly] = []
        self._missed_before: dict[str, frozenset[int]] = {}
        """Files of readings that had left before they were counted: their records are counted already."""
        self._pace = Pace(WORK_S, REST_S, self.is_stopped)

    def note_left(self, files: Iterable[LeftEarly]) -> None:
        """They left, and the ledger's file could not take a note of it: a disk without any room."""
        self._unwritten += files

    def run(self, left_early: EarlyIn, log: logging.Logger) -> None:
        """Counts everything and completes what a crash left open. `left_early` tells what has left a directory so far.

        Blocking, long; ends early when `is_stopped`.
        """
        directories = [""]
        readings = []
        while directories and not self.is_stopped.is_set():
            directory = directories.pop()
            files = self._count_files(directory, directories)
            if not is_binary_path(directory):
                readings.append(directory)
            self._add_missed(directory, files, left_early)
        for directory in readings:
            if self.is_stopped.is_set():
                return
            files = self._count_records(directory)
            self._add_missed_records(directory, files, left_early)
        self._recover(log)

    def _count_files(self, directory: str, directories: list[str]) -> array[int]:
        """Adds the complete files of a directory; returns what was seen. Its directories are added to the list."""
        found, seen, is_binary = self.found, array("q"), is_binary_path(directory)
        for path, name in self._files(directory, directories):
            try:
                status = os.lstat(path)
            except OSError:
                continue
            seen.append(hash(path))
            found.add(directory, hour_of(name), int(is_binary), status.st_size)
            modified_ns = status.st_mtime_ns
            if found.oldest_ns is None or modified_ns < found.oldest_ns:
                found.oldest_ns = modified_ns
        return seen

    def _count_records(self, directory: str) -> array[int]:
        seen = array("q")
        for path, name in self._files(directory):
            records = count_records(Path(path), self._keyring)
            if records or os.path.lexists(path):
                seen.append(hash(path))
                self.found.add_records(directory, hour_of(name), records)
        return seen

    def _files(self, directory: str, directories: list[str] | None = None) -> Iterator[tuple[str, str]]:
        """Path and name of the complete files of earlier runs, oldest first; rests in between."""
        # Text, not Path objects: with a million files they would cost half a minute.
        folder = f"{self._root}/{directory}".rstrip("/")
        below: set[str] = set()
        pace = self._pace
        orphans: set[str] = set()

        def is_wanted(entry: os.DirEntry[str]) -> bool:
            name = entry.name
            pace.step()
            if self.is_stopped.is_set():
                return False
            if entry.is_dir(follow_symlinks=False):
                if name not in SKIPPED_DIRECTORIES:
                    below.add(f"{directory}/{name}".lstrip("/"))
                return False
            if name.endswith(IN_PROGRESS_SUFFIX) and entry.is_file(follow_symlinks=False):
                orphans.add(entry.path)
            return name.endswith(COMPLETE_SUFFIX) and entry.is_file(follow_symlinks=False)

        with contextlib.suppress(OSError):  # removed while we looked, or unreadable: left alone
            for name in oldest_first(folder, is_wanted):
                pace.step()
                if self.is_stopped.is_set():
                    return
                path = f"{folder}/{name}"
                if path.removesuffix(COMPLETE_SUFFIX) not in self.created and path not in self._ignored:
                    yield path, name
        if directories is not None:
            directories += below
            self._orphans += (p for p in orphans if p.removesuffix(IN_PROGRESS_SUFFIX) not in self.created)

    def _add_missed(self, directory: str, seen: array[int], left_early: EarlyIn) -> None:
        missed = self._missed(directory, seen, left_early)
        if not is_binary_path(directory):
            self._missed_before[directory] = frozenset(missed)
        for file in self._left(directory, left_early):
            if hash(file.path) in missed:
                self.found.add(directory, file.hour, file.records, file.size_bytes)
                missed.discard(hash(file.path))

    def _add_missed_records(self, directory: str, seen: array[int], left_early: EarlyIn) -> None:
        missed = self._missed(directory, seen, left_early) - self._missed_before.pop(directory, frozenset())
        for file in self._left(directory, left_early):
            if hash(file.path) in missed:
                self.found.add_records(directory, file.hour, file.records)
                missed.discard(hash(file.path))

    def _missed(self, directory: str, seen: array[int], left_early: EarlyIn) -> set[int]:
        """Hashes of the paths that left before they were seen."""
        missed = {hash(file.path) for file in self._left(directory, left_early)}
        missed.difference_update(seen)
        return missed

    def _left(self, directory: str, left_early: EarlyIn) -> Iterator[LeftEarly]:
        """Asked for after a directory was gone through: what leaves it later was seen."""
        for file in chain(left_early(directory), [f for f in self._unwritten if f.directory == directory]):
            if file.path.removesuffix(COMPLETE_SUFFIX) not in self.created and file.path not in self._ignored:
                yield file

    def _recover(self, log: logging.Logger) -> None:
        """Completes what a crash left open, and counts it."""
        for finished in finish_orphans(Path(self._root), self._orphans, self._keyring, log):
            directory = finished.path.parent.relative_to(self._root).as_posix()
            self.found.add(directory, hour_of(finished.path.name), finished.records, finished.size_bytes)
            if self.is_stopped.is_set():
                return


def count_backlog(root: Path, keyring: Keyring | None = None) -> Backlog:
    """Everything in a directory at rest whose owner has recovered it."""
    count = Count(root, keyring)
    count.run(lambda _directory: (), logging.getLogger(__name__))
    return count.found
