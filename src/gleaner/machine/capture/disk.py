"""When a disk counts as full: capture stops writing before the machine itself suffers."""

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


def space_at(path: Path) -> DiskSpace:
    status = os.statvfs(path)
    return DiskSpace(status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail)


def is_full(space: DiskSpace, was_full: bool) -> bool:
    reserve = min(RESERVE_SHARE * space.size_bytes, RESERVE_BYTES)
    return space.free_bytes < reserve * (RESUME_FACTOR if was_full else 1.0)


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
