"""Works on a store and kills itself (SIGKILL) at the step it is told: `{"work", "folder", "at", "disk"?}` a line on stdin.
With `disk`, an ext4 mounted there, its power goes first: what was not synced is gone (`EXT4_IOC_SHUTDOWN`, as xfstests do it).

Steps are what changes the disk: before and after each fsync, rename, removal and new folder, and each commit of the
metadata. Imports cost a second, so one process forks for each line; the child does the work and says what was acknowledged.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect
from store_world import WORKS, as_line

_EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_HOOKED = ("fsync", "rename", "replace", "unlink", "mkdir")


class Steps:
    """Counts; at number `at` (from 1; 0: never) the process is gone."""

    def __init__(self, at: int, disk: str) -> None:
        self._at = at
        self._disk = disk
        self._lock = threading.Lock()
        self.names: list[str] = []

    def step(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            if len(self.names) == self._at:
                if self._disk:
                    cut_power(self._disk)
                os.write(1, as_line(killed=name))
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, owner: Any, name: str, *, says: str = "") -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def hooked(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {says or name}")
            result = original(*args, **kwargs)
            self.step(f"after {says or name}")
            return result

        setattr(owner, name, hooked)


def cut_power(disk: str) -> None:
    handle = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(handle, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    os.close(handle)


def work(name: str, folder: Path, at: int, disk: str) -> None:
    steps = Steps(at, disk)
    for function in _HOOKED:
        steps.hook(os, function)
    steps.hook(DefaultDialect, "do_commit", says="commit")

    def say(number: int) -> None:
        os.write(1, as_line(acknowledged=number))

    WORKS[name].run(folder, say)
    os.write(1, as_line(ended=steps.names))


def main() -> None:
    import duckdb  # noqa: F401 - before the forks: the compactor loads it in each

    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                work(wanted["work"], Path(wanted["folder"]), wanted["at"], wanted.get("disk", ""))
            except Exception:  # noqa: BLE001 - the top of a process: the test is told
                os.write(1, as_line(failed=traceback.format_exc()))
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, as_line(status=os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
