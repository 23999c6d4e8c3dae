"""Counts the captures of earlier runs, while this run's captures and sync go on already.

Nothing leaves the directory meanwhile: the machine holds the *count lock*, and sync, which may send, waits for it before
it lets go of its first file; thinning begins after the count. What this run's writer makes is left out by name: the
writer notes each name before the file appears. So the files counted are exactly those of earlier runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.directory import STATE, Waiting, count_records, hour_of, is_binary_path, walk_files
from gleaner.wire.capture_file import COMPLETE_SUFFIX

COUNT_LOCK_FILE = "count.lock"


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
    """Returns once files may leave the directory. Blocking."""
    with contextlib.suppress(FileNotFoundError):  # somebody removed the directory: there is nothing to count
        fd = os.open(root / STATE / COUNT_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


@dataclass
class Backlog:
    """Complete files of earlier runs, by directory."""

    waiting: dict[str, Waiting] = field(default_factory=dict)
    by_hour: dict[tuple[str, int], Waiting] = field(default_factory=dict)
    """Records only, by directory and hour of the name."""
    oldest_ns: int | None = None


def count_backlog(
    root: Path, created: Container[str], keyring: Keyring | None = None, stopping: Callable[[], bool] = lambda: False
) -> Backlog:
    """Stats every complete file, and reads the tabular ones; keeps nothing of a file, so memory stays flat."""
    found = Backlog()
    prefix = len(str(root)) + 1
    for entry in walk_files(root):
        if stopping():
            break
        if not entry.name.endswith(COMPLETE_SUFFIX) or entry.path.removesuffix(COMPLETE_SUFFIX) in created:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        # Text, not Path objects: with a million files they would cost half a minute.
        directory = entry.path[prefix : -len(entry.name) - 1]
        here = found.waiting.get(directory)
        if here is None:
            here = found.waiting[directory] = Waiting()
        here.files += 1
        here.size_bytes += status.st_size
        records = 1 if is_binary_path(directory) else count_records(Path(entry.path), keyring)
        here.records += records
        found.by_hour.setdefault((directory, hour_of(entry.name)), Waiting()).records += records
        modified_ns = status.st_mtime_ns
        found.oldest_ns = modified_ns if found.oldest_ns is None else min(found.oldest_ns, modified_ns)
    return found
