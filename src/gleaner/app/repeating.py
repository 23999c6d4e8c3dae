"""Work that one thread does again and again: tidying packs, compacting readings."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class GivingWay:
    """Work that waits while something more urgent goes on, but not for ever: an app may be busy all day."""

    def __init__(
        self, is_busy: Callable[[], bool], longest_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_busy = is_busy
        self._longest_s = longest_s
        self._now = now
        self._done_s = now()

    def should_wait(self) -> bool:
        return self._is_busy() and self._now() - self._done_s < self._longest_s

    def done(self) -> None:
        """The work has had its turn."""
        self._done_s = self._now()


class Repeating:
    """start() → running → stop(). `work` is called at start, or `every_s` after it, and then `every_s` after each end."""

    def __init__(self, name: str, work: Callable[[], object], every_s: float, *, at_start: bool, what: str) -> None:
        """`what`: as a log message begins when the work failed ("Tidying the packs"); it is tried again next time."""
        self._name = name
        self._work = work
        self._every_s = every_s
        self._at_start = at_start
        self._what = what
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopping(self) -> bool:
        """For the work: end soon, where you can be taken up again."""
        return self._stop.is_set()

    def start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._woken.clear()
            self._thread = threading.Thread(target=self._run, name=self._name)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._woken.set()
            self._thread.join()
            self._thread = None

    def soon(self) -> None:
        """Do not wait any longer: there is something to do."""
        self._woken.set()

    def _run(self) -> None:
        is_due = self._at_start
        while True:
            if is_due:
                try:
                    self._work()
                except Exception:
                    log.exception("%s failed; it is tried again in %.0f seconds", self._what, self._every_s)
            is_due = True
            self._woken.wait(self._every_s)
            if self._stop.is_set():
                return
            self._woken.clear()
