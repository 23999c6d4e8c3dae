"""When a disk counts as full: what is captured is thinned in time, and capture stops before the machine itself suffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Of a big disk one gigabyte is enough for the system to go on (logs, updates of packages); of a small one, a fiftieth.
RESERVE_SHARE = 0.02
RESERVE_BYTES = 1_000_000_000
# Writing resumes a quarter above the reserve: without the gap it would stop and start with every file that is sent.
RESUME_FACTOR = 1.25


@dataclass(frozen=True)
class DiskSpace:
    size_bytes: int
    free_bytes: int
    files: int = 0
    """How many it can hold; 0 where there is no such limit (btrfs)."""
    free_files: int = 0


def space_at(path: Path) -> DiskSpace:
    status = os.statvfs(path)
    size_bytes, free_bytes = status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail
    return DiskSpace(size_bytes, free_bytes, status.f_files, status.f_favail)


@dataclass(frozen=True)
class Marks:
    """When the data manager thins what it holds, as shares of the whole disk (Viam's attributes and defaults)."""

    used: float = 0.9
    """`disk_usage_deletion_threshold`: the disk is used this far by anybody …"""
    captures: float = 0.5
    """`capture_dir_deletion_threshold`: … and captures are at least this much of it."""


# Thinning ends so much of the disk below the mark: the next round comes after many captures, not after the next one.
LOW_MARK_GAP = 0.03
# Whoever filled the disk, captures are thinned before the reserve is touched: capture must go on.
EMERGENCY_FACTOR = 2.0
EMERGENCY_END_FACTOR = 3.0


def bytes_to_free(space: DiskSpace, captures_bytes: int, marks: Marks) -> int:
    """How much of the captures has to go now; 0 while there is room."""
    high = int(marks.used * space.size_bytes)
    used = space.size_bytes - space.free_bytes
    need = 0
    if used >= high and captures_bytes >= marks.captures * space.size_bytes:
        need = used - int((marks.used - LOW_MARK_GAP) * space.size_bytes)
    if space.free_bytes < EMERGENCY_FACTOR * reserve_bytes(space):
        need = max(need, int(EMERGENCY_END_FACTOR * reserve_bytes(space)) - space.free_bytes)
    return min(need, captures_bytes)


# A million small captures can use up the inodes of a disk that has space.
FEW_FILES, FILES_END = 0.03, 0.06


def files_to_free(space: DiskSpace, captures_files: int) -> int:
    """How many captures have to go now so that new files can be made; 0 while they can."""
    if space.free_files >= FEW_FILES * space.files:
        return 0
    return min(int(FILES_END * space.files) - space.free_files, captures_files)


def reserve_bytes(space: DiskSpace) -> float:
    """What is never written to, so that the system goes on."""
    return min(RESERVE_SHARE * space.size_bytes, RESERVE_BYTES)


def is_full(space: DiskSpace, was_full: bool) -> bool:
    return space.free_bytes < reserve_bytes(space) * (RESUME_FACTOR if was_full else 1.0)


class DiskGuard:
    """Remembers whether the disk is full. `check` is cheap, to be called about once a second."""

    def __init__(self, path: Path, space: Callable[[Path], DiskSpace] = space_at) -> None:
        self._path = path
        self._space = space
        self.full = False

    def check(self) -> bool:
        """Returns whether the state changed. A disk that cannot be asked counts as it did before."""
        try:
            full = is_full(self._space(self._path), self.full)
        except OSError:
            return False
        changed, self.full = full != self.full, full
        return changed
