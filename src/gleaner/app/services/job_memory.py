"""Keeps a training from taking the computer's memory away from the app, and from everything else that runs there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

_LOOK_EVERY_S = 1.0
_USUAL_SHARE = 0.75
_KILL_FIRST = 500
"""Of −1000 to 1000 (Linux, proc(5)): should the system's memory run out all the same, the training goes, not the app."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def usual_limit_mb() -> int:
    """Three quarters of the computer's memory, or of what its container may have."""
    whole = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        whole = min(whole, int(_CGROUP_LIMIT.read_text()))
    return int(whole * _USUAL_SHARE) >> 20


class MemoryWatch:
    """Looks every second at what a process and those that it started have; calls `too_much(MB)` once if that is over the limit."""

    def __init__(self, pid: int, limit_mb: int, too_much: Callable[[int], None]) -> None:
        self._pid, self._limit_mb, self._too_much = pid, limit_mb, too_much
        self._is_over = threading.Event()
        with contextlib.suppress(OSError):  # it has ended, or this is no Linux
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(_KILL_FIRST))
        self._thread = threading.Thread(target=self._watch, name="training memory")
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY_S):
            used = used_mb(self._pid, self._limit_mb)
            if used > self._limit_mb:
                self._too_much(used)
                return


def used_mb(pid: int, enough_mb: int = 0) -> int:
    """Memory of a process and all that it started, in MB. What several of them share counts once, as far as it matters: only above
    `enough_mb` it is looked at so closely, which takes longer."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    used = _sum(family, lambda one: int(one.memory_info().rss))
    if used > enough_mb:
        used = min(used, _sum(family, _own_part))
    return used


def _own_part(process: psutil.Process) -> int:
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.rss))


def _sum(family: list[psutil.Process], of: Callable[[psutil.Process], int]) -> int:
    total = 0
    for one in family:
        with contextlib.suppress(psutil.Error):
            total += of(one)
    return total >> 20
